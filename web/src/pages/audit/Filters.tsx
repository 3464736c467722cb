import { Button, Group, Select } from '@mantine/core';
import { useQuery } from 'urql';

import { graphql } from '../../api/graphql';
import { DateTimeField } from '../../ui/DateTimeField';
import { allActions, resourceTypes, told } from './entries';
import type { AuditFilter } from './useAuditFilter';

const PeopleQuery = graphql(`
  query AuditPeople($slug: String!) {
    organization(slug: $slug) {
      id
      users(first: 100) { nodes { id userId email } }
    }
  }
`);

/** What is shown of the trail: who, what, about what, and when. `slug` offers the people of an organization. */
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
          label="Who"
          placeholder="Everybody"
          clearable
          searchable
          nothingFoundMessage="Nobody of that name"
          value={search.user ?? null}
          data={known ? people : [...people, { value: search.user ?? '', label: `User ${search.user?.slice(0, 8)}…` }]}
          onChange={choose('user')}
        />
      )}
      <Select
        size="xs"
        w={170}
        label="Action"
        placeholder="Any"
        clearable
        searchable
        value={search.action ?? null}
        data={withOwn(allActions, search.action)}
        onChange={choose('action')}
      />
      <Select
        size="xs"
        w={150}
        label="About"
        placeholder="Anything"
        clearable
        value={search.type ?? null}
        data={withOwn(resourceTypes, search.type)}
        onChange={choose('type')}
      />
      {(['from', 'to'] as const).map((name) => (
        <DateTimeField
          key={name}
          label={name === 'from' ? 'From' : 'Up to'}
          value={at(search[name])}
          onChange={(next) => change({ [name]: next === undefined ? undefined : new Date(next).toISOString() })}
        />
      ))}
      {search.resource && (
        <Button size="xs" variant="default" onClick={() => change({ resource: undefined })}>
          About {search.resource.slice(0, 8)}… ✕
        </Button>
      )}
      {isFiltered && (
        <Button size="xs" variant="subtle" onClick={clear}>
          Clear
        </Button>
      )}
    </Group>
  );
}

function withOwn(words: readonly string[], own: string | undefined) {
  const all = own && !words.includes(own) ? [...words, own] : words;
  return all.map((value) => ({ value, label: told(value) }));
}
