// The pages that the menu and the command palette offer.
import {
  type Icon,
  IconActivityHeartbeat,
  IconAdjustments,
  IconBuilding,
  IconChartBar,
  IconCode,
  IconCreditCard,
  IconHistory,
  IconPlug,
  IconSkull,
  IconTestPipe,
  IconUsers,
  IconUsersGroup,
  IconWebhook,
} from '@tabler/icons-react';

import { useOrganizationIfAny, useViewer } from '../session/viewer';

export type Place = { label: string; href: string; icon: Icon; section: string; external?: boolean };

export function usePlaces(): Place[] {
  const viewer = useViewer();
  const here = useOrganizationIfAny();
  const slug = here?.slug ?? viewer.organization?.slug;
  const canManage = viewer.isSuperAdmin || viewer.user.role === 'ADMIN';
  const places: Place[] = [];
  if (slug) {
    const section = here?.name ?? viewer.organization?.name ?? slug;
    const add = (label: string, path: string, icon: Icon) =>
      places.push({ label, href: `/dashboard/${slug}/${path}`, icon, section });
    add('Webhooks', 'webhooks', IconWebhook);
    add('Dead letters', 'dead-letters', IconSkull);
    add('Analytics', 'analytics', IconChartBar);
    add('Providers', 'providers', IconPlug);
    add('Tester', 'tester', IconTestPipe);
    if (canManage) {
      add('Team', 'team', IconUsers);
      add('Usage and billing', 'usage', IconCreditCard);
      add('Audit trail', 'audit', IconHistory);
    }
  }
  if (viewer.isSuperAdmin) {
    const add = (label: string, path: string, icon: Icon) =>
      places.push({ label, href: `/admin/${path}`, icon, section: 'Administration' });
    add('Organizations', 'organizations', IconBuilding);
    add('Users', 'users', IconUsersGroup);
    add('All providers', 'providers', IconPlug);
    add('System analytics', 'analytics', IconChartBar);
    add('System audit', 'audit', IconHistory);
    add('Health', 'health', IconActivityHeartbeat);
    add('Settings', 'settings', IconAdjustments);
  }
  if (canManage)
    places.push({ label: 'GraphiQL', href: '/graphiql', icon: IconCode, section: 'Developers', external: true });
  return places;
}
