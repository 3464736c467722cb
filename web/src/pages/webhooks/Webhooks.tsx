// The list of webhooks, live, with filters, a histogram, and the open webhook beside it.
import { Button, Skeleton } from '@mantine/core';
import { IconDownload, IconRefresh } from '@tabler/icons-react';
import { lazy, Suspense, useCallback, useMemo, useRef, useState } from 'react';
import { useQuery } from 'urql';

import { useOrganization } from '../../session/viewer';
import { useOffer } from '../../ui/commands';
import { ErrorCard } from '../../ui/ErrorCard';
import { Page } from '../../ui/Page';
import type { VirtualTableHandle } from '../../ui/VirtualTable';
import { type Search, useSearch } from '../../url';
import { WebhookDrawer } from './detail/WebhookDrawer';
import { ExportDialog } from './ExportDialog';
import { absoluteTimes, Chips, Filters, nothing } from './Filters';
import { type FilterParameters, filterOf, isFiltered, serverFilter } from './filter';
import { LiveToggle } from './LiveToggle';
import { NoMatch, NoProvider, NoWebhook } from './Nothing';
import { type Surroundings, SurroundingsQuery } from './queries';
import { RetryDialog, type RetryTarget } from './RetryDialog';
import { retryable } from './retry';
import { count as countRows, isLoaded, rowAt } from './rows';
import { SelectionBar } from './SelectionBar';
import { useOpenWebhook } from './useOpenWebhook';
import { useRows } from './useRows';
import { useSelection } from './useSelection';
import classes from './Webhooks.module.css';
import { WebhookTable } from './WebhookTable';

// The list does not wait for the code of the chart.
const Histogram = lazy(() => import('./Histogram'));

export default function Webhooks() {
  const { slug } = useOrganization();
  const [{ data, error, fetching }, again] = useQuery({ query: SurroundingsQuery, variables: { slug } });
  const refresh = () => again({ requestPolicy: 'network-only' });
  const organization = data?.organization;
  if (organization) return <List surroundings={organization} refresh={refresh} />;
  return (
    <Page title="Webhooks" fills>
      {error && !fetching ? <ErrorCard error={error} again={refresh} /> : <Loading />}
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

function List({ surroundings, refresh }: { surroundings: Surroundings; refresh: () => void }) {
  const { slug, id: organizationId } = useOrganization();
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
  const navigation = useOpenWebhook(rows.list, table);
  const selection = useSelection(rows.list);
  const selected = [...selection.chosen.values()];
  const [retrying, setRetrying] = useState<RetryTarget | null>(null);
  const [exporting, setExporting] = useState(false);
  const size = countRows(rows.list);

  const change = useCallback(
    (to: FilterParameters, options?: { replace?: boolean }) => setSearch(to as Search, options),
    [setSearch],
  );
  const clearFilters = () => change(nothing);
  const toggleLive = () => setSearch({ live: live ? 'off' : '' }, { replace: true });
  const reload = () => {
    table.current?.toTop();
    // If the span ends now, the new filter starts the reading.
    setReadAt(Date.now());
    rows.reload();
  };
  const selectHere = () => {
    const row = rowAt(rows.list, navigation.here);
    if (row) selection.choose(row, false);
  };
  const retryHere = () => {
    const row = rowAt(rows.list, navigation.current);
    const able = selected.filter(retryable);
    if (able.length > 0) setRetrying({ rows: able });
    else if (row && retryable(row)) setRetrying({ rows: [row] });
  };
  const openHere = () => navigation.current >= 0 && !isOnControl() && navigation.open(navigation.current);
  useOffer([
    { label: 'Search webhooks', hotkey: '/', run: () => box.current?.focus() },
    { label: 'Next webhook', hotkey: 'j', run: () => navigation.move(1) },
    { label: 'Previous webhook', hotkey: 'k', run: () => navigation.move(-1) },
    { label: 'Select webhook', hotkey: 'x', run: selectHere },
    // The open webhook has shortcuts of its own.
    ...(navigation.opened
      ? []
      : [
          { label: 'Open webhook', hotkey: 'Enter', run: openHere },
          { label: 'Retry the current or selected webhooks', hotkey: 'r', run: retryHere },
        ]),
    { label: live ? 'Pause live updates' : 'Resume live updates', hotkey: 'l', run: toggleLive },
    { label: 'Clear filters', run: clearFilters },
    { label: 'Export matching webhooks', run: () => setExporting(true) },
  ]);

  return (
    <Page
      title="Webhooks"
      fills
      actions={
        <>
          <LiveToggle live={live} toggle={toggleLive} interrupted={rows.interrupted} searching={filter.text !== ''} />
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
        <SelectionBar
          selected={selected}
          clear={selection.clear}
          loaded={isLoaded(rows.list) ? size : undefined}
          more={rows.list.next !== undefined}
          retry={(able) => setRetrying({ rows: able })}
          retryAll={() => setRetrying({ filter: serverFilter(filter) })}
        />
        <WebhookTable
          rows={rows}
          selection={selection}
          navigation={navigation}
          table={table}
          top={top}
          reload={reload}
          empty={
            filtered ? (
              <NoMatch clear={clearFilters} />
            ) : surroundings.providers.length === 0 ? (
              <NoProvider />
            ) : (
              <NoWebhook
                providers={surroundings.providers}
                sent={() => {
                  refresh();
                  rows.reload();
                }}
              />
            )
          }
        />
      </div>
      {navigation.opened && (
        <WebhookDrawer
          webhookId={navigation.opened}
          previous={navigation.here > 0 ? () => navigation.move(-1) : undefined}
          next={navigation.here < size - 1 ? () => navigation.move(1) : undefined}
          close={navigation.close}
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
}

/** In these controls, Enter has its own meaning. */
const isOnControl = () =>
  document.activeElement?.matches('a, button, input, summary, [role="tab"], [role="menuitemcheckbox"]') === true;
