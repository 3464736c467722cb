import { Page } from '../../ui/Page';

export default function Tester() {
  return <Page title="Tester">…</Page>;
}
