import { Anchor, Button, Group, Modal, Progress, SimpleGrid, Stack, Table, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useState } from 'react';
import { useQuery } from 'urql';
import { Link, useParams } from 'wouter';

import { graphql } from '../../api/graphql';
import { count, plural } from '../../format';
import { When } from '../../time';
import { Active } from '../../ui/Active';
import { Card } from '../../ui/Card';
import { Confirm } from '../../ui/Confirm';
import { CopyText } from '../../ui/CopyText';
import { ErrorCard } from '../../ui/ErrorCard';
import { NotFound } from '../../ui/NotFound';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { ProviderName, providers } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { summary } from '../audit/entries';
import { OrganizationForm } from './OrganizationForm';
import { SetOrganizationActive } from './Organizations';
import { limitWord, plans } from './plans';

const Query = graphql(`
  query AdminOrganization($slug: String!) {
    organization(slug: $slug) {
      id slug name plan webhookLimit isActive webhookCount createdAt updatedAt
      usage { month used percentUsed resetsAt warning pastMonths { month used } }
      providers { id providerName isActive deletedAt webhookUrl destination { url waiting circuit } }
      users(first: 20) { nodes { id email role isActive lastLoginAt } pageInfo { hasNextPage } }
      auditLog(first: 20) { nodes { position at action resourceType user { email } userId } }
    }
  }
`);

const Update = graphql(`
  mutation UpdateOrganization($input: UpdateOrganizationInput!) {
    updateOrganization(input: $input) { organization { id name plan webhookLimit } }
  }
`);

export default function OrganizationPage() {
  const { slug = '' } = useParams<{ slug: string }>();
  const [{ data, error, fetching }, again] = useQuery({ query: Query, variables: { slug } });
  const [editing, { open, close }] = useDisclosure();
  const [asked, setAsked] = useState(false);
  const update = useAct(Update);
  const setActive = useAct(SetOrganizationActive);
  if (error && !data && !fetching)
    return <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />;
  if (!data) return <PageLoading />;
  const { organization } = data;
  if (!organization) return <NotFound what="Organization" />;
  const { usage } = organization;
  const dashboard = `/dashboard/${organization.slug}`;
  return (
    <Page
      title={organization.name}
      lead={
        <Group gap="sm">
          <Active is={organization.isActive} />
          <CopyText value={organization.slug} label="Copy slug" />
        </Group>
      }
      actions={
        <>
          <Button variant="default" component={Link} href={`${dashboard}/webhooks`}>
            Open dashboard
          </Button>
          <Button variant="default" onClick={open}>
            Edit organization
          </Button>
          <Button
            variant="default"
            c={organization.isActive ? 'var(--failed)' : undefined}
            onClick={() => setAsked(true)}
          >
            {organization.isActive ? 'Deactivate' : 'Reactivate'}
          </Button>
        </>
      }
    >
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Card title="Plan and usage">
          <Stack gap="xs">
            <Text size="sm">
              {plans[organization.plan].word}, {limitWord(organization.webhookLimit)}
            </Text>
            <Text size="sm">
              {plural(usage.used, 'webhook')} this month, {count(organization.webhookCount)} in total
            </Text>
            {usage.percentUsed !== null && (
              <Progress
                value={Math.min(usage.percentUsed, 100)}
                color={usage.warning === 'REACHED' ? 'red' : usage.warning === 'APPROACHING' ? 'yellow' : undefined}
                aria-label={`${Math.round(usage.percentUsed)} % of the limit used`}
              />
            )}
            <Text size="xs" className="quiet">
              {usage.pastMonths.map(({ month, used }) => `${month}: ${count(used)}`).join(' · ') ||
                'No webhooks in earlier months'}
            </Text>
            <Text size="xs" className="quiet">
              Created <When at={organization.createdAt} size="xs" />, updated{' '}
              <When at={organization.updatedAt} size="xs" />
            </Text>
          </Stack>
        </Card>
        <Card title="Providers">
          {organization.providers.length === 0 && (
            <Text size="sm" className="quiet">
              No providers connected
            </Text>
          )}
          <Table.ScrollContainer minWidth={440} type="native" tabIndex={0} role="region" aria-label="Providers">
            <Table withRowBorders={false}>
              <Table.Tbody>
                {organization.providers.map((provider) => (
                  <Table.Tr key={provider.id}>
                    <Table.Td>
                      <Anchor
                        component={Link}
                        href={`${dashboard}/providers/${providers[provider.providerName].slug}`}
                        size="sm"
                      >
                        <ProviderName kind={provider.providerName} />
                      </Anchor>
                    </Table.Td>
                    <Table.Td>
                      {provider.deletedAt ? (
                        <Text size="sm" className="quiet">
                          Deleted
                        </Text>
                      ) : (
                        <Active is={provider.isActive} />
                      )}
                    </Table.Td>
                    <Table.Td maw={220}>
                      <Text size="xs" className="quiet cut">
                        {provider.destination?.url ?? 'Stored only'}
                      </Text>
                      {provider.destination && (
                        <Text size="xs">{plural(provider.destination.waiting, 'webhook')} waiting</Text>
                      )}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Card>
        <Card
          title="Users"
          actions={
            <Anchor component={Link} href={`${dashboard}/team`} size="sm">
              View all
            </Anchor>
          }
        >
          <Table.ScrollContainer minWidth={440} type="native" tabIndex={0} role="region" aria-label="Users">
            <Table withRowBorders={false}>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Email address</Table.Th>
                  <Table.Th>Role</Table.Th>
                  <Table.Th>Status</Table.Th>
                  <Table.Th>Last sign-in</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {organization.users.nodes.map((user) => (
                  <Table.Tr key={user.id}>
                    <Table.Td className="foreign">{user.email ?? 'Erased user'}</Table.Td>
                    <Table.Td>{user.role === 'ADMIN' ? 'Admin' : 'Member'}</Table.Td>
                    <Table.Td>
                      <Active is={user.isActive} />
                    </Table.Td>
                    <Table.Td>
                      <When at={user.lastLoginAt} />
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Card>
        <Card
          title="Recent activity"
          actions={
            <Anchor component={Link} href={`${dashboard}/audit`} size="sm">
              View audit trail
            </Anchor>
          }
        >
          <Table.ScrollContainer minWidth={440} type="native" tabIndex={0} role="region" aria-label="Recent activity">
            <Table withRowBorders={false}>
              <Table.Tbody>
                {organization.auditLog.nodes.map((entry) => (
                  <Table.Tr key={entry.position}>
                    <Table.Td>
                      <When at={entry.at} />
                    </Table.Td>
                    <Table.Td>{summary(entry)}</Table.Td>
                    <Table.Td className="quiet foreign">
                      {entry.user?.email ?? (entry.userId ? 'Super admin' : 'System')}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Card>
      </SimpleGrid>
      <Modal opened={editing} onClose={close} title="Edit organization">
        <OrganizationForm
          values={organization}
          label="Save changes"
          busy={update.busy}
          cancel={close}
          submit={({ name, plan, webhookLimit }) =>
            void update
              .act({ input: { id: organization.id, name, plan, webhookLimit } }, 'Organization updated')
              .then((saved) => {
                if (saved) close();
              })
          }
        />
      </Modal>
      <Confirm
        opened={asked}
        close={() => setAsked(false)}
        title={organization.isActive ? 'Deactivate organization' : 'Reactivate organization'}
        label={organization.isActive ? 'Deactivate organization' : 'Reactivate organization'}
        danger={organization.isActive}
        busy={setActive.busy}
        typed={organization.isActive ? organization.slug : undefined}
        run={() =>
          void setActive.act({ id: organization.id, isActive: !organization.isActive }).then(() => setAsked(false))
        }
      >
        {organization.isActive
          ? 'Its webhooks will be rejected, and its users are signed out immediately. Nothing is deleted, and you can reactivate it later.'
          : 'Its webhooks will be accepted again, and its users can sign in.'}
      </Confirm>
    </Page>
  );
}
