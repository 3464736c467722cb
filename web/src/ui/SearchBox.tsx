import { CloseButton, TextInput } from '@mantine/core';
import { useDebouncedCallback } from '@mantine/hooks';
import { IconSearch } from '@tabler/icons-react';
import { useEffect, useRef, useState } from 'react';

import { useOffer } from './commands';

/** A search field. It reports the text a moment after the typing stops. `/` moves the focus here. */
export function SearchBox({
  value,
  onChange,
  label,
}: {
  value: string;
  onChange: (value: string) => void;
  label: string;
}) {
  const [text, setText] = useState(value);
  const field = useRef<HTMLInputElement>(null);
  const told = useRef(value);
  const tell = useDebouncedCallback((next: string) => {
    told.current = next;
    onChange(next);
  }, 250);
  useEffect(() => {
    // A link or "back" changed the text.
    if (value !== told.current) {
      told.current = value;
      setText(value);
    }
  }, [value]);
  useOffer([{ label: 'Search', hotkey: '/', run: () => field.current?.focus() }]);
  return (
    <TextInput
      ref={field}
      size="xs"
      w={{ base: '100%', xs: 280 }}
      aria-label={label}
      placeholder={`${label} ( / )`}
      leftSection={<IconSearch size={14} aria-hidden />}
      rightSection={
        text && (
          <CloseButton
            size="xs"
            aria-label="Clear search"
            onClick={() => {
              setText('');
              tell('');
            }}
          />
        )
      }
      value={text}
      onChange={(event) => {
        setText(event.currentTarget.value);
        tell(event.currentTarget.value);
      }}
      onKeyDown={(event) => {
        if (event.key === 'Escape') field.current?.blur();
      }}
    />
  );
}
