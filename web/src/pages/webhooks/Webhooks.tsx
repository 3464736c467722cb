// The log of webhooks: what came, how it stands, live.
import { Button, Group, Skeleton } from '@mantine/core';
import { IconDownload, IconRefresh } from '@tabler/icons-react';
import { lazy, Suspense, useCallback, useMemo, useRef, useState } from 'react';
import { useQuery } from 'urql';

import { count, plural } from '../../format';
import { useOrganization } from '../../session/viewer';
import { useOffer } from '../../ui/commands';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import { type Column, VirtualTable, type VirtualTableHandle } from '../../ui/VirtualTable';
import { type Search, useSearch } from '../../url';
import { columnsFor, WebhookCard } from './columns';
import { WebhookDrawer } from './detail/WebhookDrawer';
import { ExportDialog } from './ExportDialog';
import { absoluteTimes, Chips, Filters, nothing } from './Filters';
import { type FilterParameters, filterOf, isFiltered, serverFilter } from './filter';
import { LiveToggle } from './LiveToggle';
import { NoMatch, NoProvider, NoWebhook } from './Nothing';
import { type Surroundings, SurroundingsQuery, type WebhookRow } from './queries';
import { RetryDialog, type RetryTarget } from './RetryDialog';
import { retryable } from './retry';
import { count as countRows, indexOf, isLoaded, rowAt } from './rows';
import { useRows } from './useRows';
import { useSelection } from './useSelection';
import classes from './Webhooks.module.css';

// The list does not wait for what draws the chart.
const Histogram = lazy(() => import('./Histogram'));

export default function Webhooks() {
  const { slug } = useOrganization();
  const [{ data, error, fetching }, again] = useQuery({ query: SurroundingsQuery, variables: { slug } });
  const organization = data?.organization;
  if (organization) return <List surroundings={organization} anew={() => again({ requestPolicy: 'network-only' })} />;
  return (
    <Page title="Webhooks" fills>
      {error && !fetching ? (
        <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />
      ) : (
        <Loading />
      )}
    </Page>
  );
}

function Loading() {
  return (
    <div className={classes.body} role="status" aria-label="Loading">
      <Skeleton height={30} />
      <Skeleton height={88} />
      <Skeleton height={30} width={200} />
      <Skeleton style={{ flex: 1 }} />
    </div>
  );
}

function List({ surroundings, anew }: { surroundings: Surroundings; anew: () => void }) {
  const { slug, id: organizationId, base } = useOrganization();
  const [search, setSearch] = useSearch();
  // "The last hour" ends when the list was read, not at every render.
  const [readAt, setReadAt] = useState(() => Date.now());
  const filter = useMemo(
    () => filterOf(search, surroundings.providers, readAt),
    [search, surroundings.providers, readAt],
  );
  const filtered = isFiltered(filter);
  const live = search.live !== 'off';
  const table = useRef<VirtualTableHandle>(null);
  const box = useRef<HTMLInputElement>(null);
  const top = useRef(true);
  const rows = useRows({ slug, organizationId }, filter, { live, atTop: () => top.current });
  const selection = useSelection(rows.list);
  const [current, setCurrent] = useState(-1);
  const [retrying, setRetrying] = useState<RetryTarget | null>(null);
  const [exporting, setExporting] = useState(false);
  const size = countRows(rows.list);

  const change = useCallback(
    (to: FilterParameters, options?: { replace?: boolean }) => setSearch(to as Search, options),
    [setSearch],
  );
  const reload = () => {
    table.current?.toTop();
    // With a span up to now, reading begins with the new filter.
    setReadAt(Date.now());
    rows.reload();
  };
  const hrefOf = useCallback((row: WebhookRow) => `${base}/webhooks/${row.webhookId}`, [base]);
  const list = useRef(rows.list);
  list.current = rows.list;
  const openedNow = useRef(search.webhook);
  openedNow.current = search.webhook;
  const open = useCallback(
    (index: number) => {
      const row = rowAt(list.current, index);
      setCurrent(index);
      if (row) setSearch({ webhook: row.webhookId }, { replace: Boolean(openedNow.current) });
    },
    [setSearch],
  );
  const opened = search.webhook;
  const openedAt = opened ? indexOf(rows.list, opened) : -1;
  const here = openedAt >= 0 ? openedAt : current;
  const move = (by: number) => {
    const next = Math.min(size - 1, Math.max(0, here + by));
    const row = rowAt(rows.list, next);
    setCurrent(next);
    table.current?.scrollTo(next);
    if (opened && row) setSearch({ webhook: row.webhookId }, { replace: true });
    else requestAnimationFrame(() => table.current?.focus(next));
  };
  const close = () => {
    setSearch({ webhook: '', tab: '', view: '' });
    setCurrent(here);
    requestAnimationFrame(() => table.current?.focus(here));
  };
  const retryCurrent = () => {
    const row = rowAt(rows.list, current);
    const chosen = [...selection.chosen.values()].filter(retryable);
    if (chosen.length > 0) setRetrying({ rows: chosen });
    else if (row && retryable(row)) setRetrying({ rows: [row] });
  };
  useOffer([
    { label: 'Search webhooks', hotkey: '/', run: () => box.current?.focus() },
    { label: 'Next webhook', hotkey: 'j', run: () => move(1) },
    { label: 'Previous webhook', hotkey: 'k', run: () => move(-1) },
    { label: 'Choose the webhook', hotkey: 'x', run: () => chooseAt(here) },
    // The open one brings keys of its own.
    ...(opened
      ? []
      : [
          { label: 'Open the webhook', hotkey: 'Enter', run: () => current >= 0 && !isOnControl() && open(current) },
          { label: 'Retry the webhook, or those chosen', hotkey: 'r', run: retryCurrent },
        ]),
    {
      label: live ? 'Pause live' : 'Go live',
      hotkey: 'l',
      run: () => setSearch({ live: live ? 'off' : '' }, { replace: true }),
    },
    { label: 'Clear the filters', run: () => change(nothing) },
    { label: 'Export what matches', run: () => setExporting(true) },
  ]);

  const { choose } = selection;
  function chooseAt(index: number) {
    const row = rowAt(rows.list, index);
    if (row) choose(row, false);
  }
  const columns = useMemo(() => columnsFor(hrefOf, choice(choose)), [hrefOf, choose]);
  const card = useCallback(
    (row: WebhookRow, chosen: boolean) => (
      <WebhookCard row={row} href={hrefOf(row)} choice={choice(choose).render(row, chosen)} />
    ),
    [hrefOf, choose],
  );
  const at = useCallback((index: number) => rowAt(list.current, index), []);

  return (
    <Page
      title="Webhooks"
      fills
      actions={
        <>
          <LiveToggle
            live={live}
            toggle={() => setSearch({ live: live ? 'off' : '' }, { replace: true })}
            interrupted={rows.interrupted}
            searching={filter.text !== ''}
          />
          <Button size="xs" variant="default" leftSection={<IconRefresh size={14} aria-hidden />} onClick={reload}>
            Reload
          </Button>
          <Button
            size="xs"
            variant="default"
            leftSection={<IconDownload size={14} aria-hidden />}
            onClick={() => setExporting(true)}
          >
            Export
          </Button>
        </>
      }
    >
      <div className={classes.body}>
        <div>
          <Filters search={search} filter={filter} change={change} providers={surroundings.providers} searchRef={box} />
          <Chips search={search} filter={filter} change={change} />
        </div>
        {(surroundings.webhookCount > 0 || size > 0) && (
          <Suspense fallback={<Skeleton height={142} />}>
            <Histogram
              filter={filter}
              moved={readAt}
              turn={rows.list}
              live={live}
              zoom={(from, to) => change(absoluteTimes(from, to))}
            />
          </Suspense>
        )}
        <ChoiceBar
          chosen={[...selection.chosen.values()]}
          clear={selection.clear}
          loaded={size}
          more={rows.list.next !== undefined}
          retry={(chosen) => setRetrying({ rows: chosen })}
          retryAll={() => setRetrying({ filter: serverFilter(filter) })}
        />
        {content()}
      </div>
      {opened && (
        <WebhookDrawer
          webhookId={opened}
          previous={here > 0 ? () => move(-1) : undefined}
          next={here < size - 1 ? () => move(1) : undefined}
          close={close}
          onRow={rows.replace}
        />
      )}
      <RetryDialog target={retrying} close={() => setRetrying(null)} done={selection.clear} onRow={rows.replace} />
      <ExportDialog
        opened={exporting}
        close={() => setExporting(false)}
        filter={serverFilter(filter)}
        filtered={filtered}
      />
    </Page>
  );

  function content() {
    if (rows.error && !isLoaded(rows.list))
      return (
        <div className={classes.instead}>
          <ErrorCard error={rows.error} again={rows.goOn} />
        </div>
      );
    if (isLoaded(rows.list) && size === 0 && rows.list.next === undefined) {
      return (
        <div className={classes.instead}>
          {filtered ? (
            <NoMatch clear={() => change(nothing)} />
          ) : surroundings.providers.length === 0 ? (
            <NoProvider />
          ) : (
            <NoWebhook
              providers={surroundings.providers}
              sent={() => {
                anew();
                rows.reload();
              }}
            />
          )}
        </div>
      );
    }
    const rowsInWaiting = isLoaded(rows.list) ? size : 30;
    return (
      <div className={classes.list}>
        {rows.list.waiting > 0 && (
          <Button size="xs" radius="xl" className={classes.pill} onClick={reload} aria-live="polite">
            {rows.list.waiting > 999 ? 'Many new' : `${count(rows.list.waiting)} new`}
          </Button>
        )}
        <VirtualTable
          handle={table}
          label="Webhooks"
          columns={columns}
          card={card}
          count={rowsInWaiting}
          rowAt={at}
          rowKey={keyOf}
          current={here}
          isChosen={selection.has}
          onOpen={open}
          onLook={rows.look}
          onTop={(isTop) => {
            top.current = isTop;
            if (isTop && rows.list.waiting > 0) rows.reload();
          }}
          foot={isLoaded(rows.list) && <Foot rows={rows} size={size} />}
        />
      </div>
    );
  }
}

/** Enter there means the control itself. */
const isOnControl = () =>
  document.activeElement?.matches('a, button, input, summary, [role="tab"], [role="menuitemcheckbox"]') === true;

const keyOf = (row: WebhookRow) => row.webhookId;

function choice(choose: (row: WebhookRow, range: boolean) => void): Column<WebhookRow> {
  return {
    key: 'choice',
    label: <span role="img" aria-label="Chosen" />,
    width: '20px',
    render: (row, chosen) => (
      // The label makes the place that one can hit larger than the box.
      <label className={classes.choice}>
        <input
          type="checkbox"
          aria-label={`Choose ${row.eventType ?? 'the webhook'} of ${row.receivedAt.slice(0, 19)}`}
          checked={chosen}
          onChange={(event) => choose(row, event.nativeEvent instanceof MouseEvent && event.nativeEvent.shiftKey)}
        />
      </label>
    ),
  };
}

function Foot({ rows, size }: { rows: ReturnType<typeof useRows>; size: number }) {
  return (
    <div className={classes.foot}>
      {rows.error ? (
        <ErrorCard error={rows.error} again={rows.goOn} title="The next ones could not be loaded" />
      ) : rows.paused ? (
        <Group justify="center" gap="xs">
          Found {plural(size, 'webhook')} so far.
          <Button size="compact-xs" variant="default" onClick={rows.goOn}>
            Search further back
          </Button>
        </Group>
      ) : rows.list.next !== undefined ? (
        'Loading…'
      ) : (
        `${plural(size, 'webhook')}: that is all`
      )}
    </div>
  );
}

function ChoiceBar({
  chosen,
  clear,
  loaded,
  more,
  retry,
  retryAll,
}: {
  chosen: WebhookRow[];
  clear: () => void;
  loaded: number;
  more: boolean;
  retry: (chosen: WebhookRow[]) => void;
  retryAll: () => void;
}) {
  const able = chosen.filter(retryable);
  return (
    <div className={classes.bar}>
      {chosen.length === 0 ? (
        <>
          <span className="quiet" aria-live="polite">
            {more ? `${count(loaded)}+ webhooks` : plural(loaded, 'webhook')}
          </span>
          <Button size="compact-sm" variant="subtle" color="gray" onClick={retryAll}>
            Retry all that match…
          </Button>
        </>
      ) : (
        <>
          <span aria-live="polite">
            <b>{count(chosen.length)}</b> chosen
            {able.length < chosen.length && `, ${count(able.length)} of them failed`}
          </span>
          <Group gap="xs">
            <Button size="compact-sm" disabled={able.length === 0} onClick={() => retry(able)}>
              Retry {count(able.length)}…
            </Button>
            <Button size="compact-sm" variant="default" onClick={retryAll}>
              Retry all that match…
            </Button>
            <Button size="compact-sm" variant="subtle" color="gray" onClick={clear}>
              Clear
            </Button>
          </Group>
        </>
      )}
    </div>
  );
}
