// Which address shows which page. Pages come when they are first asked for.
import { type ComponentType, lazy, Suspense } from 'react';
import { Redirect, Route, Switch } from 'wouter';

import { useToken } from './session/session';
import { OrganizationProvider, useOrganization, useViewer, ViewerProvider } from './session/viewer';
import { NotFound } from './ui/NotFound';
import { PageLoading } from './ui/PageLoading';
import { Shell } from './ui/Shell';

const page = (load: () => Promise<{ default: ComponentType }>) => lazy(load);

const SignIn = page(() => import('./pages/signin/SignIn'));
const Verify = page(() => import('./pages/signin/Verify'));
const Demo = page(() => import('./pages/demo/Demo'));

const Webhooks = page(() => import('./pages/webhooks/Webhooks'));
const Webhook = page(() => import('./pages/webhooks/WebhookPage'));
const DeadLetters = page(() => import('./pages/deadletters/DeadLetters'));
const Analytics = page(() => import('./pages/analytics/Analytics'));
const Providers = page(() => import('./pages/providers/Providers'));
const ConnectProvider = page(() => import('./pages/providers/ConnectProvider'));
const Provider = page(() => import('./pages/providers/ProviderPage'));
const Tester = page(() => import('./pages/tester/Tester'));
const Team = page(() => import('./pages/team/Team'));
const Usage = page(() => import('./pages/usage/Usage'));
const Audit = page(() => import('./pages/audit/Audit'));
const Account = page(() => import('./pages/account/Account'));

const AdminOrganizations = page(() => import('./pages/admin/Organizations'));
const AdminOrganization = page(() => import('./pages/admin/OrganizationPage'));
const AdminUsers = page(() => import('./pages/admin/Users'));
const AdminProviders = page(() => import('./pages/admin/Providers'));
const AdminAnalytics = page(() => import('./pages/admin/Analytics'));
const AdminAudit = page(() => import('./pages/admin/Audit'));
const AdminHealth = page(() => import('./pages/admin/Health'));
const AdminSettings = page(() => import('./pages/admin/Settings'));

export function App() {
  return (
    <Suspense fallback={<PageLoading />}>
      <Switch>
        <Route path="/login" component={SignIn} />
        <Route path="/auth/verify" component={Verify} />
        <Route path="/demo" component={Demo} />
        <Route>
          <SignedIn />
        </Route>
      </Switch>
    </Suspense>
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
            <Suspended of={Account} />
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

/** Where one begins: one's own webhooks; for super admins, the organizations. */
function Home() {
  const { organization } = useViewer();
  return <Redirect to={organization ? `/dashboard/${organization.slug}/webhooks` : '/admin/organizations'} replace />;
}

function Dashboard() {
  const { base, canManage } = useOrganization();
  const managed = (of: ComponentType) => (canManage ? of : NotForMembers);
  return (
    <Suspense fallback={<PageLoading />}>
      <Switch>
        <Route path={base}>
          <Redirect to={`${base}/webhooks`} replace />
        </Route>
        <Route path={`${base}/webhooks`} component={Webhooks} />
        <Route path={`${base}/webhooks/:webhookId`} component={Webhook} />
        <Route path={`${base}/dead-letters`} component={DeadLetters} />
        <Route path={`${base}/analytics`} component={Analytics} />
        <Route path={`${base}/providers`} component={Providers} />
        <Route path={`${base}/providers/new`} component={managed(ConnectProvider)} />
        <Route path={`${base}/providers/:name`} component={Provider} />
        <Route path={`${base}/tester`} component={Tester} />
        <Route path={`${base}/team`} component={managed(Team)} />
        <Route path={`${base}/usage`} component={managed(Usage)} />
        <Route path={`${base}/audit`} component={managed(Audit)} />
        <Route>
          <NotFound />
        </Route>
      </Switch>
    </Suspense>
  );
}

function Admin() {
  const { isSuperAdmin } = useViewer();
  if (!isSuperAdmin) return <NotFound />;
  return (
    <Shell>
      <Suspense fallback={<PageLoading />}>
        <Switch>
          <Route path="/admin">
            <Redirect to="/admin/organizations" replace />
          </Route>
          <Route path="/admin/organizations" component={AdminOrganizations} />
          <Route path="/admin/organizations/:slug" component={AdminOrganization} />
          <Route path="/admin/users" component={AdminUsers} />
          <Route path="/admin/providers" component={AdminProviders} />
          <Route path="/admin/analytics" component={AdminAnalytics} />
          <Route path="/admin/audit" component={AdminAudit} />
          <Route path="/admin/health" component={AdminHealth} />
          <Route path="/admin/settings" component={AdminSettings} />
          <Route>
            <NotFound />
          </Route>
        </Switch>
      </Suspense>
    </Shell>
  );
}

function Suspended({ of: Content }: { of: ComponentType }) {
  return (
    <Suspense fallback={<PageLoading />}>
      <Content />
    </Suspense>
  );
}

function NotForMembers() {
  return <NotFound />;
}
