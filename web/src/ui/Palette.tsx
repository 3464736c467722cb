// The command palette: finds pages and the current page's commands by a few letters.
import { Modal, ScrollArea, Text, TextInput } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { IconArrowRight, IconSearch } from '@tabler/icons-react';
import { useMemo, useState } from 'react';
import { useLocation } from 'wouter';

import { useCommands } from './commands';
import { usePlaces } from './navigation';
import classes from './Palette.module.css';

type Entry = { label: string; detail: string; run: () => void };

export function Palette({ opened, open, close }: { opened: boolean; open: () => void; close: () => void }) {
  useHotkeys([['mod+K', open]], []);
  return (
    <Modal.Root opened={opened} onClose={close} padding={0} size={560} yOffset="12vh">
      <Modal.Overlay />
      <Modal.Content aria-label="Go to">
        <Modal.Body>
          <Choice close={close} />
        </Modal.Body>
      </Modal.Content>
    </Modal.Root>
  );
}

function Choice({ close }: { close: () => void }) {
  const [, go] = useLocation();
  const places = usePlaces();
  const commands = useCommands();
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const entries = useMemo<Entry[]>(
    () => [
      ...commands.map(({ label, run }) => ({ label, detail: 'On this page', run })),
      ...places.map(({ label, href, section, external }) => ({
        label,
        detail: section,
        run: () => (external ? location.assign(href) : go(href)),
      })),
      { label: 'Account and sessions', detail: 'Account', run: () => go('/account') },
    ],
    [places, commands, go],
  );
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries.filter(({ label, detail }) =>
    words.every((word) => `${label} ${detail}`.toLowerCase().includes(word)),
  );
  const run = (entry: Entry | undefined) => {
    if (!entry) return;
    close();
    entry.run();
  };
  return (
    <>
      <TextInput
        data-autofocus
        size="md"
        variant="unstyled"
        px="md"
        placeholder="Go to a page or run an action"
        aria-label="Go to"
        role="combobox"
        aria-expanded
        aria-controls="palette-entries"
        aria-activedescendant={found[at] ? `palette-${at}` : undefined}
        leftSection={<IconSearch size={18} aria-hidden />}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === 'ArrowDown') setAt((before) => Math.min(before + 1, found.length - 1));
          else if (event.key === 'ArrowUp') setAt((before) => Math.max(before - 1, 0));
          else if (event.key === 'Enter') run(found[at]);
          else return;
          event.preventDefault();
        }}
      />
      <ScrollArea.Autosize mah={360} className={classes.list}>
        <div role="listbox" id="palette-entries" aria-label="Pages and actions">
          {found.map((entry, index) => (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the text field above takes the keys
            // biome-ignore lint/a11y/useFocusableInteractive: the text field has the focus
            <div
              key={`${entry.detail} ${entry.label}`}
              id={`palette-${index}`}
              role="option"
              aria-selected={index === at}
              className={classes.entry}
              onMouseMove={() => setAt(index)}
              onClick={() => run(entry)}
            >
              <span>{entry.label}</span>
              <span className={classes.detail}>
                {entry.detail}
                <IconArrowRight size={14} aria-hidden />
              </span>
            </div>
          ))}
        </div>
        {found.length === 0 && (
          <Text p="md" size="sm" className="quiet">
            No results
          </Text>
        )}
      </ScrollArea.Autosize>
    </>
  );
}
