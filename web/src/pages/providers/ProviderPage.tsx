import { Page } from '../../ui/Page';

export default function ProviderPage() {
  return <Page title="ProviderPage">…</Page>;
}
