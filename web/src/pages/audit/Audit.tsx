import { useOrganization } from '../../session/viewer';
import { Page } from '../../ui/Page';
import { useList } from '../../ui/useList';
import { AuditTrail } from './AuditTrail';
import { Export } from './Export';
import { AuditQuery } from './entries';
import { Filters } from './Filters';
import { useAuditFilter } from './useAuditFilter';

export default function Audit() {
  const { slug } = useOrganization();
  const filter = useAuditFilter();
  const list = useList(AuditQuery, { slug, filter: filter.server }, (data) => data.organization?.auditLog);
  return (
    <Page
      title="Audit trail"
      lead="A tamper-evident record of who did what"
      actions={<Export slug={slug} query={filter.query} />}
    >
      <Filters of={filter} slug={slug} />
      <AuditTrail list={list} filter={filter} />
    </Page>
  );
}
