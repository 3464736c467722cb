// The pages by address. Their code is loaded when it is first needed.
import { Redirect, Route, Switch } from 'wouter';

import { useToken } from './session/session';
import { OrganizationProvider, useOrganization, useViewer, ViewerProvider } from './session/viewer';
import { type Later, later } from './ui/later';
import { NotFound } from './ui/NotFound';
import { Shell } from './ui/Shell';

type Pages = readonly (readonly [path: string, page: Later, forWhom?: 'managers'])[];

const open: Pages = [
  ['/login', later(() => import('./pages/signin/SignIn'))],
  ['/auth/verify', later(() => import('./pages/signin/Verify'))],
  ['/demo', later(() => import('./pages/demo/Demo'))],
];

/** Behind `/dashboard/{slug}`. */
const dashboard: Pages = [
  ['/webhooks', later(() => import('./pages/webhooks/Webhooks'))],
  ['/webhooks/:webhookId', later(() => import('./pages/webhooks/WebhookPage'))],
  ['/dead-letters', later(() => import('./pages/deadletters/DeadLetters'))],
  ['/analytics', later(() => import('./pages/analytics/Analytics'))],
  ['/providers', later(() => import('./pages/providers/Providers'))],
  ['/providers/new', later(() => import('./pages/providers/ConnectProvider')), 'managers'],
  ['/providers/:name', later(() => import('./pages/providers/ProviderPage'))],
  ['/tester', later(() => import('./pages/tester/Tester'))],
  ['/team', later(() => import('./pages/team/Team')), 'managers'],
  ['/usage', later(() => import('./pages/usage/Usage')), 'managers'],
  ['/audit', later(() => import('./pages/audit/Audit')), 'managers'],
];

const admin: Pages = [
  ['/admin/organizations', later(() => import('./pages/admin/Organizations'))],
  ['/admin/organizations/:slug', later(() => import('./pages/admin/OrganizationPage'))],
  ['/admin/users', later(() => import('./pages/admin/Users'))],
  ['/admin/providers', later(() => import('./pages/admin/Providers'))],
  ['/admin/analytics', later(() => import('./pages/admin/Analytics'))],
  ['/admin/audit', later(() => import('./pages/admin/Audit'))],
  ['/admin/health', later(() => import('./pages/admin/Health'))],
  ['/admin/settings', later(() => import('./pages/admin/Settings'))],
];

const Account = later(() => import('./pages/account/Account'));

/** Starts loading the code of a page while the session is still being checked. */
export function begin(path: string) {
  const inside = path.replace(/^\/dashboard\/[^/]+/, '');
  const fits = (pattern: string) => {
    const [parts, given] = [pattern.split('/'), inside.split('/')];
    return parts.length === given.length && parts.every((part, index) => part.startsWith(':') || part === given[index]);
  };
  const found = [...open, ...dashboard, ...admin].find(([pattern]) => fits(pattern));
  // The page itself shows a failure.
  found?.[1].begin().catch(() => undefined);
}

export function App() {
  return (
    <Switch>
      {open.map(([path, Page]) => (
        <Route key={path} path={path} component={Page} />
      ))}
      <Route>
        <SignedIn />
      </Route>
    </Switch>
  );
}

function SignedIn() {
  const token = useToken();
  if (!token) {
    const here = location.pathname + location.search;
    return <Redirect to={here === '/' ? '/login' : `/login?next=${encodeURIComponent(here)}`} replace />;
  }
  return (
    <ViewerProvider>
      <Switch>
        <Route path="/" component={Home} />
        <Route path="/account">
          <Shell>
            <Account />
          </Shell>
        </Route>
        <Route path="/admin/*?" component={Admin} />
        <Route path="/dashboard/:slug/*?">
          {({ slug }) => (
            <OrganizationProvider slug={slug}>
              <Shell>
                <Dashboard />
              </Shell>
            </OrganizationProvider>
          )}
        </Route>
        <Route>
          <NotFound />
        </Route>
      </Switch>
    </ViewerProvider>
  );
}

/** The first page: the organization's webhooks, or for super admins the organizations. */
function Home() {
  const { organization } = useViewer();
  return <Redirect to={organization ? `/dashboard/${organization.slug}/webhooks` : '/admin/organizations'} replace />;
}

function Dashboard() {
  const { base, canManage } = useOrganization();
  return (
    <Switch>
      <Route path={base}>
        <Redirect to={`${base}/webhooks`} replace />
      </Route>
      {dashboard.map(([path, Page, forWhom]) => (
        <Route key={path} path={base + path}>
          {forWhom && !canManage ? <NotFound /> : <Page />}
        </Route>
      ))}
      <Route>
        <NotFound />
      </Route>
    </Switch>
  );
}

function Admin() {
  const { isSuperAdmin } = useViewer();
  if (!isSuperAdmin) return <NotFound />;
  return (
    <Shell>
      <Switch>
        <Route path="/admin">
          <Redirect to="/admin/organizations" replace />
        </Route>
        {admin.map(([path, Page]) => (
          <Route key={path} path={path} component={Page} />
        ))}
        <Route>
          <NotFound />
        </Route>
      </Switch>
    </Shell>
  );
}
