// The frame around every page of a signed-in user: menu, search, account.
import {
  ActionIcon,
  AppShell,
  Burger,
  Group,
  Kbd,
  Menu,
  NavLink,
  ScrollArea,
  Text,
  Tooltip,
  UnstyledButton,
  useComputedColorScheme,
  useMantineColorScheme,
} from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { IconClock, IconLogout, IconMoon, IconSearch, IconSun, IconUserCircle } from '@tabler/icons-react';
import { Fragment, type ReactNode, useEffect } from 'react';
import { Link, useLocation } from 'wouter';

import { signOut } from '../session/session';
import { useOrganizationIfAny, useViewer } from '../session/viewer';
import { setZone, useZone } from '../time';
import { Keys } from './Keys';
import { Logo } from './Logo';
import { usePlaces } from './navigation';
import { Palette } from './Palette';
import classes from './Shell.module.css';

export function Shell({ children }: { children: ReactNode }) {
  const [menu, { toggle, close }] = useDisclosure();
  const [palette, paletteIs] = useDisclosure();
  const [here] = useLocation();
  const organization = useOrganizationIfAny();
  // biome-ignore lint/correctness/useExhaustiveDependencies: another page closes the menu
  useEffect(close, [here, close]);
  return (
    <AppShell
      header={{ height: 52 }}
      navbar={{ width: 220, breakpoint: 'sm', collapsed: { mobile: !menu } }}
      classNames={{ main: classes.main }}
    >
      <a href="#content" className={classes.skip}>
        Skip to content
      </a>
      <AppShell.Header className={classes.header}>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap" miw={0}>
            <Burger opened={menu} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
            <Link href="/" aria-label="Hookledger: home" className={classes.logo}>
              <Logo />
            </Link>
            {organization && (
              <Text size="sm" className="cut quiet" visibleFrom="xs">
                / {organization.name}
                {!organization.isActive && ' (deactivated)'}
              </Text>
            )}
          </Group>
          <Group gap="xs" wrap="nowrap">
            <UnstyledButton className={classes.search} onClick={paletteIs.open} visibleFrom="sm">
              <IconSearch size={14} aria-hidden />
              <span>Go to…</span>
              <Kbd size="xs">Ctrl K</Kbd>
            </UnstyledButton>
            <ActionIcon variant="subtle" color="gray" hiddenFrom="sm" onClick={paletteIs.open} aria-label="Go to…">
              <IconSearch size={18} />
            </ActionIcon>
            <ZoneToggle />
            <SchemeToggle />
            <AccountMenu />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar className={classes.navbar} aria-label="Pages">
        <AppShell.Section grow component={ScrollArea} type="never">
          <Places />
        </AppShell.Section>
      </AppShell.Navbar>
      <AppShell.Main id="content" tabIndex={-1}>
        {children}
      </AppShell.Main>
      <Palette opened={palette} open={paletteIs.open} close={paletteIs.close} />
      <Keys />
    </AppShell>
  );
}

function Places() {
  const [here] = useLocation();
  const places = usePlaces();
  return places.map(({ label, href, icon: PlaceIcon, section, external }, index) => (
    <Fragment key={href}>
      {places[index - 1]?.section !== section && <div className={classes.section}>{section}</div>}
      <NavLink
        component={(external ? 'a' : Link) as typeof Link}
        href={href}
        label={label}
        active={here === href || here.startsWith(`${href}/`)}
        aria-current={here === href ? 'page' : undefined}
        leftSection={<PlaceIcon size={18} stroke={1.6} aria-hidden />}
        className={classes.place}
      />
    </Fragment>
  ));
}

function SchemeToggle() {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme('light');
  const next = scheme === 'dark' ? 'light' : 'dark';
  return (
    <Tooltip label={`Switch to the ${next} theme`}>
      <ActionIcon
        variant="subtle"
        color="gray"
        onClick={() => setColorScheme(next)}
        aria-label={`Switch to the ${next} theme`}
      >
        {scheme === 'dark' ? <IconSun size={18} /> : <IconMoon size={18} />}
      </ActionIcon>
    </Tooltip>
  );
}

function ZoneToggle() {
  const zone = useZone();
  const next = zone === 'utc' ? 'local' : 'utc';
  const label = `Times are in ${zone === 'utc' ? 'UTC' : 'local time'}. Switch to ${next === 'utc' ? 'UTC' : 'local time'}`;
  return (
    <Tooltip label={label}>
      <ActionIcon variant="subtle" color="gray" onClick={() => setZone(next)} aria-label={label}>
        <IconClock size={18} />
      </ActionIcon>
    </Tooltip>
  );
}

function AccountMenu() {
  const { user, isSuperAdmin } = useViewer();
  const role = isSuperAdmin ? 'Super admin' : user.role === 'ADMIN' ? 'Organization admin' : 'Team member';
  return (
    <Menu position="bottom-end" width={240}>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label="Account">
          <IconUserCircle size={20} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          <div className="cut">{user.email}</div>
          <div>{role}</div>
        </Menu.Label>
        <Menu.Item component={Link} href="/account" leftSection={<IconUserCircle size={16} />}>
          Account and sessions
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void signOut()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
