import { Anchor, Button, Checkbox, Group, SegmentedControl, Select, Table, Text } from '@mantine/core';
import { IconPlug } from '@tabler/icons-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { graphql } from '../../api/graphql';
import { count, plural } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { Empty } from '../../ui/Empty';
import { ListEnd } from '../../ui/ListEnd';
import { Page } from '../../ui/Page';
import { type ProviderKind, ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { SearchBox } from '../../ui/SearchBox';
import { useAct } from '../../ui/useAct';
import { useList } from '../../ui/useList';
import { useSelection } from '../../ui/useSelection';
import { useSearch } from '../../url';

const Query = graphql(`
  query AdminProviders($search: String, $providerName: ProviderName, $isActive: Boolean, $after: String) {
    providers(first: 50, search: $search, providerName: $providerName, isActive: $isActive, after: $after) {
      nodes { id providerName isActive hasSecret createdAt organization { id slug name } destination { url circuit waiting } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

const SetActive = graphql(`
  mutation AdminSetProviderActive($id: ID!, $isActive: Boolean!) {
    setProviderActive(input: { id: $id, isActive: $isActive }) { provider { id isActive } }
  }
`);

const circuits = { CLOSED: 'Closed', OPEN: 'Open: nothing is sent', HALF_OPEN: 'Half open: trying' };

/** The connected providers of every organization. */
export default function Providers() {
  const [{ q, active, service }, change] = useSearch();
  const kind = providerKinds.find((each) => services[each].slug === service) ?? null;
  const list = useList(Query, { search: q ?? null, providerName: kind, isActive: active ? active === 'yes' : null }, (data) => data.providers);
  const { chosen, toggle, clear, all } = useSelection(list.rows.map(({ id }) => id));
  const set = useAct(SetActive);
  const [asked, setAsked] = useState<boolean>();
  const [done, setDone] = useState<number>();
  const setAll = async (isActive: boolean) => {
    setDone(0);
    for (const id of chosen) {
      if (!(await set.act({ id, isActive }))) break;
      setDone((before) => (before ?? 0) + 1);
    }
    setDone(undefined);
    setAsked(undefined);
    clear();
    list.reload();
  };
  return (
    <Page
      title="All providers"
      actions={
        <>
          <SearchBox label="Organization or destination" value={q ?? ''} onChange={(next) => change({ q: next }, { replace: true })} />
          <Select
            size="xs"
            w={170}
            aria-label="Service"
            placeholder="Any service"
            clearable
            value={kind}
            data={providerKinds.map((value) => ({ value, label: services[value].word }))}
            onChange={(next) => change({ service: next ? services[next as ProviderKind].slug : undefined })}
          />
          <SegmentedControl
            size="xs"
            aria-label="Which"
            value={active ?? 'all'}
            onChange={(next) => change({ active: next === 'all' ? undefined : next })}
            data={[
              { value: 'all', label: 'All' },
              { value: 'yes', label: 'Active' },
              { value: 'no', label: 'Deactivated' },
            ]}
          />
        </>
      }
    >
      {chosen.size > 0 && (
        <Group mb="sm" gap="xs" role="status">
          <Text size="sm">{plural(chosen.size, 'provider')} chosen</Text>
          <Button size="xs" variant="default" onClick={() => setAsked(true)}>
            Activate
          </Button>
          <Button size="xs" variant="default" c="var(--failed)" onClick={() => setAsked(false)}>
            Deactivate
          </Button>
          <Button size="xs" variant="subtle" onClick={clear}>
            Choose none
          </Button>
        </Group>
      )}
      {!list.isFirst && list.rows.length === 0 ? (
        <Empty icon={IconPlug} title="No provider matches">
          Providers that organizations connect are listed here, the newest first.
        </Empty>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={900}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th w={36}>
                    <Checkbox
                      size="xs"
                      aria-label="Choose all shown"
                      checked={chosen.size > 0 && chosen.size === list.rows.length}
                      indeterminate={chosen.size > 0 && chosen.size < list.rows.length}
                      onChange={() => (chosen.size > 0 ? clear() : all())}
                    />
                  </Table.Th>
                  <Table.Th>Provider</Table.Th>
                  <Table.Th>Organization</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Destination</Table.Th>
                  <Table.Th>Circuit</Table.Th>
                  <Table.Th ta="right">Waiting</Table.Th>
                  <Table.Th>Connected</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {list.rows.map((row) => (
                  <Table.Tr key={row.id} bg={chosen.has(row.id) ? 'var(--chosen)' : undefined}>
                    <Table.Td>
                      <Checkbox
                        size="xs"
                        aria-label={`Choose ${services[row.providerName].word} of ${row.organization.name}`}
                        checked={chosen.has(row.id)}
                        onChange={(event) => toggle(row.id, (event.nativeEvent as MouseEvent).shiftKey)}
                      />
                    </Table.Td>
                    <Table.Td>
                      <Anchor component={Link} href={`/dashboard/${row.organization.slug}/providers/${services[row.providerName].slug}`} size="sm">
                        <ProviderName kind={row.providerName} />
                      </Anchor>
                    </Table.Td>
                    <Table.Td>
                      <Anchor component={Link} href={`/admin/organizations/${row.organization.slug}`} size="sm" className="foreign">
                        {row.organization.name}
                      </Anchor>
                    </Table.Td>
                    <Table.Td>
                      <Active is={row.isActive} />
                    </Table.Td>
                    <Table.Td maw={240}>
                      <Text size="sm" className="cut">
                        {row.destination?.url ?? 'recorded only'}
                      </Text>
                    </Table.Td>
                    <Table.Td>{row.destination ? circuits[row.destination.circuit] : '–'}</Table.Td>
                    <Table.Td ta="right">{row.destination ? count(row.destination.waiting) : '–'}</Table.Td>
                    <Table.Td>
                      <When at={row.createdAt} />
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          <ListEnd of={list} />
        </Card>
      )}
      <Confirm
        opened={asked !== undefined}
        close={() => setAsked(undefined)}
        title={`${asked ? 'Activate' : 'Deactivate'} ${plural(chosen.size, 'provider')}`}
        label={done === undefined ? (asked ? 'Activate' : 'Deactivate') : `${done} of ${chosen.size}`}
        danger={!asked}
        busy={done !== undefined}
        run={() => void setAll(asked === true)}
      >
        {asked ? 'Their webhooks are accepted again.' : 'Their webhooks are refused with 403 from now on. Nothing is deleted.'}
      </Confirm>
    </Page>
  );
}
