// Dead letters, grouped by provider and error, to be retried one by one, by group, or all together.
import { Button, Group, Progress, Skeleton, Stack, Text } from '@mantine/core';
import { IconMoodCheck, IconRefresh, IconRotateClockwise } from '@tabler/icons-react';
import { useState } from 'react';
import { Link } from 'wouter';

import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { Card } from '../../ui/Card';
import { useOffer } from '../../ui/commands';
import { Empty } from '../../ui/Empty';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { RetryDialog, type RetryTarget } from '../webhooks/RetryDialog';
import { DeadLetterGroup } from './DeadLetterGroup';
import { type Tally, tally } from './groups';
import { MOST, useDeadLetters } from './useDeadLetters';

export default function DeadLetters() {
  const { slug, id, base } = useOrganization();
  const letters = useDeadLetters(slug, id);
  const [retrying, setRetrying] = useState<RetryTarget | null>(null);
  const { groups, total: number } = letters;
  const result = tally(letters.known);
  const retryAll = () => setRetrying({ filter: { deadLettered: true }, what: '(all dead letters)' });
  useOffer([{ label: 'Retry all dead letters', hotkey: 'r', run: () => number > 0 && retryAll() }]);

  return (
    <Page
      title="Dead letters"
      lead={
        !letters.loading &&
        !letters.error &&
        (number === 0
          ? 'Webhooks that fail every attempt appear here.'
          : `${plural(number, 'webhook')} failed every attempt and ${number === 1 ? 'needs' : 'need'} attention`)
      }
      actions={
        <>
          <Button
            size="xs"
            variant="default"
            leftSection={<IconRefresh size={14} aria-hidden />}
            onClick={letters.reload}
          >
            Reload
          </Button>
          {number > 0 && (
            <Button size="xs" leftSection={<IconRotateClockwise size={14} aria-hidden />} onClick={retryAll}>
              Retry all dead letters…
            </Button>
          )}
        </>
      }
    >
      <Stack gap="sm">
        {result.all > 0 && <Retried of={result} forget={letters.forget} />}
        {letters.error && number === 0 ? (
          <ErrorCard error={letters.error} again={letters.reload} />
        ) : letters.loading ? (
          <Stack gap="sm" role="status" aria-label="Loading">
            {[0, 1, 2].map((each) => (
              <Skeleton key={each} height={84} />
            ))}
          </Stack>
        ) : groups.length === 0 ? (
          <Card>
            <Empty
              icon={IconMoodCheck}
              title="All clear"
              action={
                <Button component={Link} href={`${base}/webhooks`} variant="default">
                  View all webhooks
                </Button>
              }
            >
              No webhooks need attention. Webhooks that fail every attempt appear here.
            </Empty>
          </Card>
        ) : (
          groups.map((group) => <DeadLetterGroup key={group.key} group={group} retry={setRetrying} />)
        )}
        {letters.more && (
          <Text size="xs" className="quiet" ta="center">
            Showing the newest {count(MOST)}. Retrying a group, or all, includes older webhooks too.
          </Text>
        )}
      </Stack>
      <RetryDialog target={retrying} close={() => setRetrying(null)} done={letters.reload} onRow={letters.replace} />
    </Page>
  );
}

/** The results of webhooks that were retried here. */
function Retried({ of: { all, succeeded, again, underWay }, forget }: { of: Tally; forget: () => void }) {
  return (
    <Card>
      <Group justify="space-between" mb={8} gap="xs">
        <Text size="sm" aria-live="polite">
          <b>{plural(all, 'webhook')} retried:</b> {count(succeeded)} succeeded, {count(again)} failed again,{' '}
          {count(underWay)} in progress
        </Text>
        {underWay === 0 && (
          <Button size="compact-xs" variant="subtle" color="gray" onClick={forget}>
            Dismiss
          </Button>
        )}
      </Group>
      <Progress.Root size="md" aria-label="Retried webhooks">
        <Progress.Section value={(succeeded / all) * 100} color="var(--success)" aria-label="Succeeded" />
        <Progress.Section value={(again / all) * 100} color="var(--dead)" aria-label="Failed again" />
      </Progress.Root>
    </Card>
  );
}
