import { Page } from '../../ui/Page';

export default function DeadLetters() {
  return <Page title="DeadLetters">…</Page>;
}
