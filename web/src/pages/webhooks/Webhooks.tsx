import { Page } from '../../ui/Page';

export default function Webhooks() {
  return <Page title="Webhooks">…</Page>;
}
