import { Page } from '../../ui/Page';

export default function OrganizationPage() {
  return <Page title="OrganizationPage">…</Page>;
}
