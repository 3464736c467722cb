import { Alert, Button, Group, Stack, Text } from '@mantine/core';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { Copy } from '../../ui/CopyText';
import { Status, statusOf } from '../../ui/Status';
import { meaning } from './faults';
import type { Sent } from './queries';
import classes from './Tester.module.css';

/** The response, the stored webhook, and the request. */
export function Outcome({ of: { answer, request, webhook, duplicate } }: { of: Sent }) {
  const { base } = useOrganization();
  const ok = answer.status < 300;
  const headers = request.headers.map(({ name, value }) => `${name}: ${value}`).join('\n');
  return (
    <Stack gap="md">
      <Alert variant="light" color={ok ? 'teal' : 'red'} title={`${answer.status} ${reasons[answer.status] ?? ''}`}>
        <Text size="sm">{meaning(answer.status, answer.body, duplicate)}</Text>
        {answer.retryAfter !== null && <Text size="sm">Retry-After: {answer.retryAfter} s</Text>}
      </Alert>
      {webhook ? (
        <Group justify="space-between">
          <Group gap="sm">
            <Status value={statusOf(webhook)} />
            <Text size="sm" className="mono foreign">
              {webhook.eventType ?? 'No event type'}
            </Text>
          </Group>
          <Button variant="default" size="xs" component={Link} href={`${base}/webhooks/${webhook.webhookId}`}>
            {duplicate ? 'Open original webhook' : 'Open webhook'}
          </Button>
        </Group>
      ) : (
        <Text size="sm" className="quiet">
          No webhook was created.
        </Text>
      )}
      <Part title="Response" text={pretty(answer.body)} />
      <Part title="Request" text={`${request.method} ${request.url}\n${headers}`} />
      <Part title="Body" text={request.body} />
    </Stack>
  );
}

const reasons: Record<number, string> = {
  200: 'OK',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  413: 'Content Too Large',
  429: 'Too Many Requests',
  503: 'Service Unavailable',
};

function Part({ title, text }: { title: string; text: string }) {
  return (
    <div>
      <Group gap={4} mb={4}>
        <Text size="sm" fw={500}>
          {title}
        </Text>
        <Copy value={text} label={`Copy ${title.toLowerCase()}`} />
      </Group>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: keys scroll it */}
      <section className={`${classes.raw} foreign`} tabIndex={0} aria-label={title}>
        {text}
      </section>
    </div>
  );
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
