import { Alert, Badge, Group, Progress, SimpleGrid, Stack, Table, Text } from '@mantine/core';
import { Fragment } from 'react';
import { useQuery } from 'urql';

import { graphql, type ResultOf } from '../../api/graphql';
import { count } from '../../format';
import { useOrganization } from '../../session/viewer';
import { useNow, When } from '../../time';
import { Card } from '../../ui/Card';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { PageLoading } from '../../ui/PageLoading';
import { limitWord, type Plan, plans } from '../admin/plans';
import classes from './Usage.module.css';

const Query = graphql(`
  query Usage($slug: String!) {
    organization(slug: $slug) {
      id
      usage { plan webhookLimit month used remaining percentUsed warning resetsAt pastMonths { month used } }
    }
  }
`);

type Of = NonNullable<ResultOf<typeof Query>['organization']>['usage'];

const warnings = {
  NONE: undefined,
  APPROACHING: {
    title: '80 % of your limit used',
    text: 'Once you reach the limit, webhooks are rejected with 429 until the month ends.',
    color: 'yellow',
  },
  REACHED: {
    title: 'Monthly limit reached',
    text: 'Webhooks are rejected with 429 (monthly_limit_reached). Some services retry for days; others never do.',
    color: 'red',
  },
} as const;

export default function Usage() {
  const { slug } = useOrganization();
  const [{ data, error, fetching }, again] = useQuery({ query: Query, variables: { slug } });
  const usage = data?.organization?.usage;
  if (!usage)
    return error && !fetching ? (
      <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
    ) : (
      <PageLoading />
    );
  const warning = warnings[usage.warning];
  return (
    <Page title="Usage and billing">
      <Stack gap="md">
        {warning && (
          <Alert variant="light" color={warning.color} title={warning.title}>
            {warning.text} To raise your limit, contact your platform operator.
          </Alert>
        )}
        <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
          <ThisMonth usage={usage} />
          <Months usage={usage} />
        </SimpleGrid>
        <Plans current={usage.plan} />
      </Stack>
    </Page>
  );
}

function ThisMonth({ usage }: { usage: Of }) {
  const { used, webhookLimit, percentUsed, remaining, warning, resetsAt, month } = usage;
  const color = warning === 'REACHED' ? 'red' : warning === 'APPROACHING' ? 'yellow' : undefined;
  return (
    <Card
      title="This month"
      actions={
        <Badge variant="light" tt="none">
          {plans[usage.plan].word}
        </Badge>
      }
    >
      <Group gap={8} align="baseline">
        <Text fz={30} fw={600} lh={1.2}>
          {count(used)}
        </Text>
        <Text size="sm" className="quiet">
          {webhookLimit === null ? 'webhooks accepted (no limit)' : `of ${count(webhookLimit)} webhooks`}
        </Text>
      </Group>
      {percentUsed !== null && (
        <>
          <div className={classes.track}>
            <Progress
              value={Math.min(percentUsed, 100)}
              color={color}
              size="lg"
              my={8}
              aria-label={`${Math.floor(percentUsed)} % of the limit used`}
            />
            <span className={classes.mark} title="80 %" />
          </div>
          <Text size="sm">
            {Math.floor(percentUsed)} % used, {count(remaining ?? 0)} left
          </Text>
        </>
      )}
      <Pace used={used} limit={webhookLimit} month={month} resetsAt={resetsAt} />
      <Text size="sm" className="quiet" mt={4}>
        Resets on <When at={resetsAt} exact />. Each accepted webhook counts once; duplicates, rejected requests, and
        retries don't count.
      </Text>
    </Card>
  );
}

/** Estimates the total of the month from its use so far, after its first day. */
function Pace({
  used,
  limit,
  month,
  resetsAt,
}: {
  used: number;
  limit: number | null;
  month: string;
  resetsAt: string;
}) {
  const now = useNow();
  const [begin, end] = [Date.parse(`${month}-01T00:00:00Z`), Date.parse(resetsAt)];
  if (now - begin < 86_400_000 || used === 0) return null;
  const expected = Math.round((used * (end - begin)) / (now - begin));
  return (
    <Text size="sm" mt={4} c={limit !== null && expected > limit ? 'var(--pending)' : undefined}>
      At this pace, you'll use about {count(expected)} by the end of the month
      {limit !== null && expected > limit && used < limit ? ', which is over your limit' : ''}.
    </Text>
  );
}

function Months({ usage: { month, used, pastMonths } }: { usage: Of }) {
  const all = [{ month, used, now: true }, ...pastMonths.slice(0, 11).map((each) => ({ ...each, now: false }))];
  const most = Math.max(1, ...all.map((each) => each.used));
  return (
    <Card title="By month">
      <div className={classes.months}>
        {all.map((each) => (
          <Fragment key={each.month}>
            <span className="quiet">{each.month}</span>
            <div
              className={classes.bar}
              data-now={each.now || undefined}
              style={{ width: `${(each.used / most) * 100}%` }}
              aria-hidden
            />
            <span className={classes.count}>
              {count(each.used)}
              {each.now && <span className="quiet"> so far</span>}
            </span>
          </Fragment>
        ))}
      </div>
      {pastMonths.length === 0 && (
        <Text size="sm" className="quiet" mt="sm">
          No webhooks in earlier months.
        </Text>
      )}
    </Card>
  );
}

function Plans({ current }: { current: Plan }) {
  return (
    <Card title="Plans">
      <Table withRowBorders={false}>
        <Table.Tbody>
          {(Object.keys(plans) as Plan[]).map((plan) => (
            <Table.Tr key={plan} fw={plan === current ? 600 : undefined}>
              <Table.Td w={120}>{plans[plan].word}</Table.Td>
              <Table.Td>{plans[plan].limit === null ? 'Unlimited' : limitWord(plans[plan].limit)}</Table.Td>
              <Table.Td>{plan === current && 'Current plan'}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      <Text size="sm" className="quiet" mt="xs">
        Every plan includes all features. To change your plan or limit, contact your platform operator.
      </Text>
    </Card>
  );
}
