import { Page } from '../../ui/Page';

export default function Demo() {
  return <Page title="Demo">…</Page>;
}
