import { Page } from '../../ui/Page';
import { useList } from '../../ui/useList';
import { AuditTrail } from '../audit/AuditTrail';
import { SystemAuditQuery } from '../audit/entries';
import { Filters } from '../audit/Filters';
import { useAuditFilter } from '../audit/useAuditFilter';

/** Every organization's trail, and the platform's own. */
export default function SystemAudit() {
  const filter = useAuditFilter();
  const list = useList(SystemAuditQuery, { filter: filter.server }, (data) => data.auditLog);
  return (
    <Page
      title="System audit"
      lead="A tamper-evident record of who did what in every organization. To export an organization's trail, open its audit trail page."
    >
      <Filters of={filter} />
      <AuditTrail list={list} filter={filter} withOrganization />
    </Page>
  );
}
