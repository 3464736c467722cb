// A time field, in the time zone of the page.
import { TextInput } from '@mantine/core';
import { useEffect, useState } from 'react';

import { absolute, useZone } from '../time';

/** The browser's own field, converted from its local time to the shown zone. `onChange` runs on blur and on Enter. */
export function DateTimeField({
  label,
  value,
  onChange,
}: {
  label: string;
  value: number | undefined;
  onChange: (at: number | undefined) => void;
}) {
  const zone = useZone();
  const shown = value === undefined ? '' : absolute(value, zone).slice(0, 16).replace(' ', 'T');
  const [text, setText] = useState(shown);
  useEffect(() => setText(shown), [shown]);
  const commit = () => {
    if (text === shown) return;
    const at = text ? Date.parse(zone === 'utc' ? `${text}Z` : text) : undefined;
    if (at === undefined || !Number.isNaN(at)) onChange(at);
  };
  return (
    <TextInput
      type="datetime-local"
      size="xs"
      label={`${label} (${zone === 'utc' ? 'UTC' : 'local'})`}
      value={text}
      onChange={(event) => setText(event.currentTarget.value)}
      onBlur={commit}
      onKeyDown={(event) => event.key === 'Enter' && commit()}
    />
  );
}
