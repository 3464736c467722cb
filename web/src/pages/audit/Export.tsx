import { Button } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { IconDownload } from '@tabler/icons-react';
import { useState } from 'react';

import { token } from '../../session/session';
import { download } from '../../ui/download';

/** Exports all matching entries as a file. The export itself is an entry of the audit trail, too. */
export function Export({ slug, query }: { slug: string; query: string }) {
  const [busy, setBusy] = useState<'csv' | 'json'>();
  const get = async (format: 'csv' | 'json') => {
    setBusy(format);
    const error = await save(slug, format, query);
    setBusy(undefined);
    if (error) notifications.show({ color: 'red', title: 'Export failed', message: error });
  };
  return (['csv', 'json'] as const).map((format) => (
    <Button
      key={format}
      size="xs"
      variant="default"
      leftSection={<IconDownload size={14} aria-hidden />}
      loading={busy === format}
      disabled={busy !== undefined && busy !== format}
      onClick={() => void get(format)}
    >
      Export {format.toUpperCase()}
    </Button>
  ));
}

/** Returns the error, if there was one. An incomplete file is not saved. */
async function save(slug: string, format: 'csv' | 'json', query: string): Promise<string | undefined> {
  try {
    const response = await fetch(`/api/organizations/${slug}/audit.${format}${query && `?${query}`}`, {
      headers: { authorization: `Bearer ${token() ?? ''}` },
    });
    if (!response.ok) {
      const answer = (await response.json().catch(() => ({}))) as { error?: string };
      return answer.error ?? `The server returned ${response.status}.`;
    }
    download(`audit-${slug}.${format}`, await response.blob(), response.headers.get('content-type') ?? '');
    return undefined;
  } catch {
    return 'The download was interrupted. Check your connection and try again.';
  }
}
