import { Anchor, Button, Group, Input, Select, Stack, Text, TextInput } from '@mantine/core';
import { type FormEvent, useId, useRef, useState } from 'react';

import { bytes } from '../../format';
import { useOffer } from '../../ui/commands';
import { type HeaderRow, HeaderRows } from '../../ui/HeaderRows';
import type { ProviderKind } from '../../ui/ProviderName';
import { useAct } from '../../ui/useAct';
import { useSearch } from '../../url';
import { faults, faultsOf } from './faults';
import { type Sample, Send, type Sent } from './queries';
import classes from './Tester.module.css';

const MOST = 256 * 1024;

type Props = { providerId: string; kind: ProviderKind; sample: Sample; fresh: () => void; sent: (sent: Sent) => void };

/** The form for a webhook to send. It begins with a sample. */
export function Draft({ providerId, kind, sample, fresh, sent }: Props) {
  const [search, change] = useSearch();
  const [body, setBody] = useState(sample.body);
  const [eventType, setEventType] = useState(sample.eventType);
  const [headers, setHeaders] = useState<readonly HeaderRow[]>(() =>
    sample.headers.map(({ name, value }) => ({ name, value })),
  );
  const form = useRef<HTMLFormElement>(null);
  const field = useId();
  const send = useAct(Send, { quiet: true });
  const choices = faultsOf(kind);
  const fault = choices.find((each) => each === search.fault) ?? 'NONE';
  const repeats = fault === 'DUPLICATE_OF_LAST';
  const size = new TextEncoder().encode(body).length;
  const wrong = problem(body);
  useOffer([{ label: 'Send test webhook', run: () => form.current?.requestSubmit() }]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const input = {
      providerId,
      fault,
      ...(repeats ? {} : { body, eventType, headers: headers.filter(({ name }) => name) }),
    };
    void send.act({ input }).then((done) => {
      if (done) sent(done.sendTestWebhook);
    });
  };
  return (
    <form
      ref={form}
      onSubmit={submit}
      onKeyDown={(event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
      }}
    >
      <Stack gap="sm">
        <Select
          label="Simulate a problem"
          description={faults[fault].means}
          inputWrapperOrder={['label', 'input', 'description']}
          allowDeselect={false}
          value={fault}
          data={choices.map((value) => ({ value, label: faults[value].word }))}
          onChange={(next) => change({ fault: next && next !== 'NONE' ? next : undefined }, { replace: true })}
        />
        {!repeats && (
          <>
            {kind === 'GITHUB' || kind === 'SHOPIFY' ? (
              <TextInput
                label="Event type"
                required
                maxLength={100}
                value={eventType}
                onChange={(event) => setEventType(event.currentTarget.value)}
              />
            ) : (
              <Text size="xs" className="quiet">
                The event type {kind === 'STRIPE' ? 'and ID are' : 'is'} in the body.
              </Text>
            )}
            <Input.Wrapper label="Body" labelProps={{ htmlFor: field }}>
              <textarea
                id={field}
                className={classes.body}
                spellCheck={false}
                autoComplete="off"
                value={body}
                onChange={(event) => setBody(event.currentTarget.value)}
                aria-describedby={`${field}-told`}
              />
              <Group justify="space-between" gap="xs">
                <Text
                  size="xs"
                  id={`${field}-told`}
                  c={size > MOST ? 'var(--failed)' : wrong ? 'var(--pending)' : 'var(--quiet)'}
                  role="status"
                >
                  {size > MOST ? `Too large: at most ${bytes(MOST)}` : bytes(size)} ·{' '}
                  {wrong ? `Not JSON; sent as is (${wrong})` : 'JSON'}
                </Text>
                <Group gap="md">
                  <Anchor
                    component="button"
                    type="button"
                    size="xs"
                    disabled={Boolean(wrong)}
                    onClick={() => setBody(JSON.stringify(JSON.parse(body), null, 2))}
                  >
                    Format JSON
                  </Anchor>
                  <Anchor component="button" type="button" size="xs" onClick={fresh}>
                    Reset sample (new ID)
                  </Anchor>
                </Group>
              </Group>
            </Input.Wrapper>
            <div>
              <Text size="sm" fw={500} mb={4}>
                Headers
              </Text>
              <HeaderRows of={headers} onChange={setHeaders} most={30} add="Add header" />
              <Text size="xs" className="quiet" mt={4}>
                Hookledger also adds the signature and the service's other headers. A header with the same name replaces
                ours; an empty value removes it.
              </Text>
            </div>
          </>
        )}
        {send.error && (
          <Text size="sm" c="var(--failed)" role="alert">
            {send.error}
          </Text>
        )}
        <Group justify="flex-end" gap="sm">
          <Text size="xs" className="quiet" visibleFrom="sm">
            Ctrl+Enter
          </Text>
          <Button type="submit" loading={send.busy} disabled={size > MOST}>
            Sign and send webhook
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** The reason why it is not JSON, or undefined. */
function problem(body: string): string | undefined {
  try {
    JSON.parse(body);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.slice(0, 120) : "it can't be parsed";
  }
}
