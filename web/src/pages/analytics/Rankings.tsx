// The most frequent event types and errors, with links to their webhooks.
import { Anchor, SimpleGrid, Stack, Text } from '@mantine/core';
import { useQuery } from 'urql';
import { Link } from 'wouter';

import { graphql, type ResultOf } from '../../api/graphql';
import { count, percent } from '../../format';
import { useOrganization } from '../../session/viewer';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { webhooksHref } from '../webhooks/filter';
import type { Period } from './period';
import classes from './Rankings.module.css';

const Query = graphql(`
  query Rankings($slug: String!, $from: DateTime!, $to: DateTime!, $provider: ID) {
    organization(slug: $slug) {
      id
      types: topEventTypes(from: $from, to: $to, providerId: $provider, first: 10) { names { name count share } total truncated }
      errors: topErrors(from: $from, to: $to, providerId: $provider, first: 10) { names { name count share } total truncated }
    }
  }
`);

type Ranking = NonNullable<ResultOf<typeof Query>['organization']>['types'];

export function Rankings({ period: { from, to }, provider }: { period: Period; provider: string | undefined }) {
  const { slug, base } = useOrganization();
  const [{ data, error, fetching }, again] = useQuery({
    query: Query,
    variables: { slug, from, to, provider: provider ?? null },
  });
  const organization = data?.organization;
  const span = { from, to, provider };
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md" mt="md">
      {error && !data && !fetching && (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      )}
      <Card title="Top event types" mih={180}>
        {organization && (
          <List
            of={organization.types}
            nothing="No webhooks in this period."
            href={(type) => webhooksHref(base, { ...span, type })}
            unnamed="No event type"
          />
        )}
      </Card>
      <Card title="Top errors" mih={180}>
        {organization && (
          <List
            of={organization.errors}
            nothing="No errors in this period."
            href={() => webhooksHref(base, { ...span, status: 'failed' })}
            unnamed="No error message"
          />
        )}
      </Card>
    </SimpleGrid>
  );
}

function List({
  of,
  nothing,
  href,
  unnamed,
}: {
  of: Ranking;
  nothing: string;
  href: (name: string) => string;
  unnamed: string;
}) {
  if (of.names.length === 0) {
    return (
      <Text size="sm" className="quiet">
        {nothing}
      </Text>
    );
  }
  return (
    <Stack gap={2}>
      {of.names.map(({ name, count: number, share }) => (
        <div key={name ?? ''} className={classes.row}>
          <div className={classes.bar} style={{ width: `${Math.max(share * 100, 0.5)}%` }} />
          <span className={classes.name}>
            {name === null ? (
              <Text span size="sm" className="quiet">
                {unnamed}
              </Text>
            ) : (
              <Anchor component={Link} href={href(name)} size="sm" c="var(--ink)" className="cut" title={name}>
                {name}
              </Anchor>
            )}
          </span>
          <Text span size="sm" className={classes.number}>
            {count(number)}
          </Text>
          <Text span size="xs" className={`quiet ${classes.number}`}>
            {percent(share)}
          </Text>
        </div>
      ))}
      {of.truncated && (
        <Text size="xs" className="quiet">
          Based on the newest {count(of.total)} webhooks in this period.
        </Text>
      )}
    </Stack>
  );
}
