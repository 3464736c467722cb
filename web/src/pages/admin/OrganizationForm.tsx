import { Button, Checkbox, Group, NumberInput, Select, Stack, TextInput } from '@mantine/core';
import { type FormEvent, useState } from 'react';

import { type Plan, planChoices, plans } from './plans';

export type OrganizationValues = { name: string; slug: string; plan: Plan; webhookLimit: number | null };

type Props = {
  values?: OrganizationValues;
  label: string;
  busy: boolean;
  submit: (values: OrganizationValues) => void;
  cancel: () => void;
};

/** Creates or edits an organization. The slug cannot be changed later. */
export function OrganizationForm({ values, label, busy, submit, cancel }: Props) {
  const [name, setName] = useState(values?.name ?? '');
  const [slug, setSlug] = useState(values?.slug ?? '');
  const [ownSlug, setOwnSlug] = useState(Boolean(values));
  const [plan, setPlan] = useState<Plan>(values?.plan ?? 'FREE');
  const [limit, setLimit] = useState<number | null>(values ? values.webhookLimit : plans.FREE.limit);
  const send = (event: FormEvent) => {
    event.preventDefault();
    submit({ name, slug, plan, webhookLimit: limit });
  };
  return (
    <form onSubmit={send}>
      <Stack gap="sm">
        <TextInput
          label="Name"
          required
          maxLength={255}
          data-autofocus
          value={name}
          onChange={(event) => {
            setName(event.currentTarget.value);
            if (!ownSlug) setSlug(slugOf(event.currentTarget.value));
          }}
        />
        <TextInput
          label="Slug"
          description="Used in URLs; can't be changed later"
          required
          disabled={Boolean(values)}
          pattern="[a-z0-9\-]{1,100}"
          maxLength={100}
          value={slug}
          onChange={(event) => {
            setOwnSlug(true);
            setSlug(event.currentTarget.value);
          }}
        />
        <Select
          label="Plan"
          allowDeselect={false}
          value={plan}
          data={planChoices}
          onChange={(next) => {
            if (!next) return;
            setPlan(next as Plan);
            setLimit(plans[next as Plan].limit);
          }}
        />
        <NumberInput
          label="Accepted webhooks per month"
          min={0}
          allowDecimal={false}
          thousandSeparator=","
          disabled={limit === null}
          value={limit ?? ''}
          onChange={(next) => setLimit(Number(next) || 0)}
        />
        <Checkbox
          label="Unlimited"
          checked={limit === null}
          onChange={(event) => setLimit(event.currentTarget.checked ? null : (plans[plan].limit ?? 1000))}
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={cancel}>
            Cancel
          </Button>
          <Button type="submit" loading={busy}>
            {label}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function slugOf(name: string): string {
  return name
    .toLowerCase()
    .normalize('NFKD')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 100);
}
