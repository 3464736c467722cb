// A webhook beside the list. The list stays usable, so that another row can be opened without closing the drawer.
import { ActionIcon, Tooltip } from '@mantine/core';
import { IconArrowsDiagonal, IconChevronDown, IconChevronUp, IconX } from '@tabler/icons-react';
import { type ReactNode, useEffect, useRef } from 'react';
import { Link } from 'wouter';

import { useOrganization } from '../../../session/viewer';
import type { WebhookRow } from '../queries';
import { Detail } from './Detail';
import classes from './detail.module.css';

export function WebhookDrawer({
  webhookId,
  previous,
  next,
  close,
  onRow,
}: {
  webhookId: string;
  previous?: () => void;
  next?: () => void;
  close: () => void;
  onRow: (row: WebhookRow) => void;
}) {
  const { base } = useOrganization();
  const panel = useRef<HTMLElement>(null);
  useEffect(() => panel.current?.focus({ preventScroll: true }), []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another webhook begins at its top
  useEffect(() => {
    panel.current?.scrollTo({ top: 0 });
  }, [webhookId]);
  const latest = useRef(close);
  latest.current = close;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return;
      // Esc first leaves a field, then closes the topmost dialog, then the drawer.
      const above = document.querySelectorAll(
        '.mantine-Modal-content, .mantine-Popover-dropdown, .mantine-Menu-dropdown',
      );
      if ([...above].some((each) => each.getClientRects().length > 0)) return;
      if (event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement) return;
      latest.current();
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  return (
    <aside ref={panel} className={classes.drawer} aria-label="Webhook" tabIndex={-1}>
      <Detail
        webhookId={webhookId}
        order={2}
        onRow={onRow}
        actions={
          <>
            <Act label="Previous (k)" run={previous}>
              <IconChevronUp size={18} />
            </Act>
            <Act label="Next (j)" run={next}>
              <IconChevronDown size={18} />
            </Act>
            <Tooltip label="Open full page">
              <ActionIcon
                component={Link}
                href={`${base}/webhooks/${webhookId}`}
                variant="subtle"
                color="gray"
                aria-label="Open full page"
              >
                <IconArrowsDiagonal size={18} />
              </ActionIcon>
            </Tooltip>
            <Act label="Close (Esc)" run={close}>
              <IconX size={18} />
            </Act>
          </>
        }
      />
    </aside>
  );
}

export function Act({ label, run, children }: { label: string; run?: () => void; children: ReactNode }) {
  return (
    <Tooltip label={label}>
      <ActionIcon variant="subtle" color="gray" aria-label={label} disabled={!run} onClick={run}>
        {children}
      </ActionIcon>
    </Tooltip>
  );
}
