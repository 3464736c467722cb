import { Page } from '../../ui/Page';

export default function ConnectProvider() {
  return <Page title="ConnectProvider">…</Page>;
}
