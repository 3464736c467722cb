import { Page } from '../../ui/Page';

export default function Organizations() {
  return <Page title="Organizations">…</Page>;
}
