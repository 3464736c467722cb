import { Page } from '../../ui/Page';

export default function Providers() {
  return <Page title="Providers">…</Page>;
}
