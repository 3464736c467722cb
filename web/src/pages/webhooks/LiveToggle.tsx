import { Button, Tooltip } from '@mantine/core';

import { useConnection } from '../../api/connection';
import { sentence } from '../../api/errors';
import classes from './Webhooks.module.css';

/** Switches live updates, and shows whether they arrive. */
export function LiveToggle({
  live,
  toggle,
  interrupted,
  searching,
}: {
  live: boolean;
  toggle: () => void;
  interrupted: Error | undefined;
  searching: boolean;
}) {
  const { state } = useConnection();
  const [word, means, tone] = told();
  function told(): [string, string, 'off' | 'on' | 'wait'] {
    if (!live) return ['Paused', 'Show changes as they happen', 'off'];
    if (interrupted) return ['Interrupted', sentence(interrupted), 'wait'];
    if (state === 'lost') return ['Reconnecting', 'Connection lost. The list updates when it is back', 'wait'];
    if (searching) return ['Live', "Rows stay up to date, but new webhooks aren't searched for text", 'on'];
    return ['Live', 'Changes appear as they happen', 'on'];
  }
  return (
    <Tooltip label={`${means} (l)`}>
      <Button
        size="xs"
        variant="default"
        aria-pressed={live}
        onClick={toggle}
        leftSection={<span className={classes.dot} data-tone={tone} aria-hidden />}
      >
        {word}
      </Button>
    </Tooltip>
  );
}
