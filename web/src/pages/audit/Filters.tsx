import { Button, Group, Select } from '@mantine/core';
import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { DateTimeField } from '../../ui/DateTimeField';
import { allActions, label, resourceTypes } from './entries';
import type { AuditFilter } from './useAuditFilter';

const PeopleQuery = graphql(`
  query AuditPeople($slug: String!) {
    organization(slug: $slug) {
      id
      users(first: 100) { nodes { id userId email } }
    }
  }
`);

/** Filters by user, action, resource and time. `slug` offers the users of an organization. */
export function Filters({ of: { search, change, clear, isFiltered }, slug }: { of: AuditFilter; slug?: string }) {
  const [{ data }] = useQuery({ query: PeopleQuery, variables: { slug: slug ?? '' }, pause: !slug });
  const people = (data?.organization?.users.nodes ?? []).map(({ userId, email }) => ({
    value: userId,
    label: email ?? userId,
  }));
  const known = !search.user || people.some(({ value }) => value === search.user);
  const at = (value: string | undefined) => (value && !Number.isNaN(Date.parse(value)) ? Date.parse(value) : undefined);
  const choose = (name: string) => (next: string | null) => change({ [name]: next ?? undefined, open: undefined });
  return (
    <Group gap="xs" align="flex-end" mb="sm">
      {(slug || search.user) && (
        <Select
          size="xs"
          w={220}
          label="User"
          placeholder="Any user"
          clearable
          searchable
          nothingFoundMessage="No users match"
          value={search.user ?? null}
          data={known ? people : [...people, { value: search.user ?? '', label: `User ${search.user?.slice(0, 8)}…` }]}
          onChange={choose('user')}
        />
      )}
      <Select
        size="xs"
        w={170}
        label="Action"
        placeholder="Any action"
        clearable
        searchable
        value={search.action ?? null}
        data={withOwn(allActions, search.action)}
        onChange={choose('action')}
      />
      <Select
        size="xs"
        w={150}
        label="Resource"
        placeholder="Any resource"
        clearable
        value={search.type ?? null}
        data={withOwn(resourceTypes, search.type)}
        onChange={choose('type')}
      />
      {(['from', 'to'] as const).map((name) => (
        <DateTimeField
          key={name}
          label={name === 'from' ? 'From' : 'To'}
          value={at(search[name])}
          onChange={(next) => change({ [name]: next === undefined ? undefined : new Date(next).toISOString() })}
        />
      ))}
      {search.resource && (
        <Button size="xs" variant="default" onClick={() => change({ resource: undefined })}>
          Resource {search.resource.slice(0, 8)}… ✕
        </Button>
      )}
      {isFiltered && (
        <Button size="xs" variant="subtle" onClick={clear}>
          Clear filters
        </Button>
      )}
    </Group>
  );
}

function withOwn(words: readonly string[], own: string | undefined) {
  const all = own && !words.includes(own) ? [...words, own] : words;
  return all.map((value) => ({ value, label: label(value) }));
}
