// The filters of the list. The address holds them all.
import { Button, Checkbox, CloseButton, Group, Popover, Select, Stack, TextInput } from '@mantine/core';
import { IconChevronDown, IconSearch } from '@tabler/icons-react';
import { type Ref, useEffect, useState } from 'react';

import { useAsk } from '../../api/ask';
import { graphql } from '../../api/graphql';
import { useOrganization } from '../../session/viewer';
import { absolute, useZone } from '../../time';
import { DateTimeField } from '../../ui/DateTimeField';
import { providerKinds, providers as services } from '../../ui/ProviderName';
import { allStatuses, type WebhookStatus, webhookStatuses } from '../../ui/Status';
import type { Search } from '../../url';
import classes from './Filters.module.css';
import { type Filter, type FilterParameters, filterNames, type KnownProvider, spans, toggled } from './filter';

const TypesQuery = graphql(`
  query EventTypes($slug: String!) {
    organization(slug: $slug) { id eventTypes }
  }
`);

type Change = (change: FilterParameters, options?: { replace?: boolean }) => void;

const flagWords = {
  any: 'Any flag',
  body: 'Duplicate with a different body',
  replay: 'Suspected replay',
} as const;

export function Filters({
  search,
  filter,
  change,
  providers,
  searchRef,
}: {
  search: Search;
  filter: Filter;
  change: Change;
  providers: readonly KnownProvider[];
  searchRef: Ref<HTMLInputElement>;
}) {
  const kinds = providerKinds.filter((kind) => providers.some((each) => each.providerName === kind));
  return (
    <Group gap="xs" className={classes.filters}>
      <TextFilter key={search.q ?? ''} value={search.q ?? ''} change={change} inputRef={searchRef} />
      <StatusFilter chosen={filter.statuses} change={change} />
      <Select
        size="xs"
        w={150}
        aria-label="Provider"
        placeholder="Any provider"
        clearable
        data={kinds.map((kind) => ({ value: services[kind].slug, label: services[kind].word }))}
        value={kinds.map((kind) => services[kind].slug).find((slug) => slug === search.provider) ?? null}
        onChange={(value) => change({ provider: value ?? '' })}
      />
      <TimeFilter search={search} filter={filter} change={change} />
      <MoreFilters search={search} filter={filter} change={change} />
    </Group>
  );
}

function TextFilter({ value, change, inputRef }: { value: string; change: Change; inputRef: Ref<HTMLInputElement> }) {
  const [text, setText] = useState(value);
  return (
    <search className={classes.search}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          change({ q: text.trim() });
        }}
      >
        <TextInput
          ref={inputRef}
          size="xs"
          aria-label="Search webhooks"
          placeholder="Search by ID, event type, or payload text"
          maxLength={400}
          leftSection={<IconSearch size={14} aria-hidden />}
          rightSection={
            text && (
              <CloseButton
                size="xs"
                aria-label="Clear search"
                onClick={() => (value ? change({ q: '' }) : setText(''))}
              />
            )
          }
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Escape') event.currentTarget.blur();
          }}
          onBlur={() => text.trim() !== value && change({ q: text.trim() })}
        />
      </form>
    </search>
  );
}

function StatusFilter({ chosen, change }: { chosen: readonly WebhookStatus[]; change: Change }) {
  const label = chosen.length === 0 ? 'Any status' : chosen.map((each) => webhookStatuses[each].word).join(', ');
  return (
    <Popover position="bottom-start" trapFocus withinPortal>
      <Popover.Target>
        <Button
          size="xs"
          variant="default"
          fw={400}
          rightSection={<IconChevronDown size={14} aria-hidden />}
          className={classes.button}
          data-set={chosen.length > 0 || undefined}
        >
          {label}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <Stack gap={10} role="group" aria-label="Status">
          {allStatuses.map((each) => {
            const { word, icon: StatusIcon, color, means } = webhookStatuses[each];
            return (
              <Checkbox
                key={each}
                size="xs"
                checked={chosen.includes(each)}
                onChange={() => change({ status: toggled(chosen, each).join(',') })}
                label={
                  <span className={classes.option}>
                    <StatusIcon size={16} color={color} aria-hidden />
                    {word}
                  </span>
                }
                description={means}
              />
            );
          })}
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}

function TimeFilter({ search, filter, change }: { search: Search; filter: Filter; change: Change }) {
  const zone = useZone();
  const [opened, setOpened] = useState(false);
  const set = filter.from !== undefined || filter.to !== undefined;
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-start" trapFocus withinPortal>
      <Popover.Target>
        <Button
          size="xs"
          variant="default"
          fw={400}
          rightSection={<IconChevronDown size={14} aria-hidden />}
          className={classes.button}
          data-set={set || undefined}
          onClick={() => setOpened(!opened)}
        >
          {timeWord(search, filter, zone)}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <Stack gap="xs" w={260}>
          {Object.entries(spans).map(([key, { word }]) => (
            <Button
              key={key}
              size="xs"
              variant={search.since === key ? 'light' : 'subtle'}
              color={search.since === key ? undefined : 'gray'}
              justify="start"
              onClick={() => {
                change({ since: key, from: '', to: '' });
                setOpened(false);
              }}
            >
              {word}
            </Button>
          ))}
          <DateTimeField label="From" value={filter.from} onChange={(at) => change(absoluteTimes(at, filter.to))} />
          <DateTimeField label="To" value={filter.to} onChange={(at) => change(absoluteTimes(filter.from, at))} />
          {set && (
            <Button size="xs" variant="default" onClick={() => change({ since: '', from: '', to: '' })}>
              Any time
            </Button>
          )}
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}

export function absoluteTimes(from: number | undefined, to: number | undefined): FilterParameters {
  const told = (at: number | undefined) => (at === undefined ? '' : new Date(at).toISOString());
  return { since: '', from: told(from), to: told(to) };
}

function timeWord(search: Search, filter: Filter, zone: 'utc' | 'local'): string {
  const span = search.since ? spans[search.since] : undefined;
  if (span) return span.word;
  const told = (at: number) => absolute(at, zone).replace(/:\d\d( UTC)?$/, '$1');
  if (filter.from !== undefined && filter.to !== undefined) return `${told(filter.from)} – ${told(filter.to)}`;
  if (filter.from !== undefined) return `Since ${told(filter.from)}`;
  if (filter.to !== undefined) return `Before ${told(filter.to)}`;
  return 'Any time';
}

function MoreFilters({ search, filter, change }: { search: Search; filter: Filter; change: Change }) {
  const { slug } = useOrganization();
  const [opened, setOpened] = useState(false);
  const types = useAsk(TypesQuery, opened ? { slug } : null).data?.organization?.eventTypes ?? [];
  const [type, setType] = useState(search.type ?? '');
  useEffect(() => setType(search.type ?? ''), [search.type]);
  const set = Boolean(filter.type || filter.signature || filter.flag);
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-start" trapFocus withinPortal>
      <Popover.Target>
        <Button
          size="xs"
          variant="default"
          fw={400}
          rightSection={<IconChevronDown size={14} aria-hidden />}
          className={classes.button}
          data-set={set || undefined}
          onClick={() => setOpened(!opened)}
        >
          More filters
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <Stack gap="sm" w={260}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              change({ type });
            }}
          >
            <TextInput
              size="xs"
              label="Event type"
              description="The exact name, as the provider sends it"
              placeholder="charge.succeeded"
              list="event-types"
              value={type}
              onChange={(event) => setType(event.currentTarget.value)}
              onBlur={() => type !== (search.type ?? '') && change({ type })}
            />
            <datalist id="event-types">
              {types.map((each) => (
                <option key={each} value={each} />
              ))}
            </datalist>
          </form>
          <Select
            size="xs"
            label="Signature"
            placeholder="Any"
            clearable
            comboboxProps={{ withinPortal: false }}
            data={[
              { value: 'valid', label: 'Verified' },
              { value: 'invalid', label: 'Not verified' },
            ]}
            value={filter.signature ?? null}
            onChange={(value) => change({ signature: value === 'valid' || value === 'invalid' ? value : undefined })}
          />
          <Select
            size="xs"
            label="Flags"
            placeholder="Any"
            clearable
            comboboxProps={{ withinPortal: false }}
            data={Object.entries(flagWords).map(([value, label]) => ({ value, label }))}
            value={filter.flag ?? null}
            onChange={(value) =>
              change({ flag: value === 'any' || value === 'body' || value === 'replay' ? value : undefined })
            }
          />
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}

/** The active filters, each with a button to remove it. */
export function Chips({ search, filter, change }: { search: Search; filter: Filter; change: Change }) {
  const zone = useZone();
  const chips: [string, string, FilterParameters][] = [];
  if (filter.text) chips.push(['Search', filter.text, { q: '' }]);
  for (const each of filter.statuses)
    chips.push(['Status', webhookStatuses[each].word, { status: toggled(filter.statuses, each).join(',') }]);
  if (search.provider) {
    const kind = providerKinds.find((each) => services[each].slug === search.provider);
    const word = kind ? services[kind].word : search.provider;
    chips.push(['Provider', filter.unknownProvider ? `${word} (not connected)` : word, { provider: '' }]);
  }
  if (filter.type) chips.push(['Event type', filter.type, { type: '' }]);
  if (filter.signature)
    chips.push(['Signature', filter.signature === 'valid' ? 'Verified' : 'Not verified', { signature: undefined }]);
  if (filter.flag) chips.push(['Flags', flagWords[filter.flag], { flag: undefined }]);
  if (filter.error) chips.push(['Error', filter.error, { error: '' }]);
  if (filter.from !== undefined || filter.to !== undefined)
    chips.push(['Received', timeWord(search, filter, zone), { since: '', from: '', to: '' }]);
  if (chips.length === 0) return null;
  return (
    <Group gap={6} mt={8} component="ul" className={classes.chips} aria-label="Active filters">
      {chips.map(([name, value, without]) => (
        <li key={name + value} className={classes.chip}>
          <span className="quiet">{name}</span> <bdi className={classes.value}>{value}</bdi>
          <CloseButton
            size={18}
            iconSize={12}
            aria-label={`Remove filter: ${name} ${value}`}
            onClick={() => change(without)}
          />
        </li>
      ))}
      {chips.length > 1 && (
        <li>
          <Button size="compact-xs" variant="subtle" color="gray" onClick={() => change(nothing)}>
            Clear all filters
          </Button>
        </li>
      )}
    </Group>
  );
}

/** Removes every filter. */
export const nothing: FilterParameters = Object.fromEntries(filterNames.map((name) => [name, '']));
