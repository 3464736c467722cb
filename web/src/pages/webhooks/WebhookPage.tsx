import { Page } from '../../ui/Page';

export default function WebhookPage() {
  return <Page title="WebhookPage">…</Page>;
}
