// The signed-in user, and the organization whose pages are shown.
import { createContext, type ReactNode, useContext } from 'react';
import { useQuery } from 'urql';

import { graphql, type ResultOf } from '../api/graphql';
import { ErrorCard } from '../ui/ErrorCard';
import { NotFound } from '../ui/NotFound';
import { PageLoading } from '../ui/PageLoading';

const ViewerQuery = graphql(`
  query Viewer {
    viewer {
      isSuperAdmin
      user { id userId email role }
      organization { id slug name }
    }
  }
`);

const OrganizationQuery = graphql(`
  query Organization($slug: String!) {
    organization(slug: $slug) { id slug name isActive }
  }
`);

export type Viewer = ResultOf<typeof ViewerQuery>['viewer'];
export type Organization = NonNullable<ResultOf<typeof OrganizationQuery>['organization']> & {
  /** An admin of it, or a super admin. */
  canManage: boolean;
  /** `/dashboard/{slug}` */
  base: string;
};

const ViewerContext = createContext<Viewer | null>(null);
const OrganizationContext = createContext<Organization | null>(null);

export function ViewerProvider({ children }: { children: ReactNode }) {
  const [{ data, error, fetching }, again] = useQuery({ query: ViewerQuery });
  if (data) return <ViewerContext value={data.viewer}>{children}</ViewerContext>;
  if (error && !fetching) return <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />;
  return <PageLoading />;
}

export function useViewer(): Viewer {
  const viewer = useContext(ViewerContext);
  if (!viewer) throw new Error('useViewer stands outside of ViewerProvider');
  return viewer;
}

export function OrganizationProvider({ slug, children }: { slug: string; children: ReactNode }) {
  const viewer = useViewer();
  const [{ data, error, fetching }, again] = useQuery({ query: OrganizationQuery, variables: { slug } });
  if (error && !data && !fetching)
    return <ErrorCard error={error} again={() => again({ requestPolicy: 'network-only' })} />;
  if (!data) return <PageLoading />;
  if (!data.organization) return <NotFound what="Organization" />;
  const canManage = viewer.isSuperAdmin || viewer.user.role === 'ADMIN';
  const value = { ...data.organization, canManage, base: `/dashboard/${slug}` };
  return <OrganizationContext value={value}>{children}</OrganizationContext>;
}

export function useOrganization(): Organization {
  const organization = useContext(OrganizationContext);
  if (!organization) throw new Error('useOrganization stands outside of OrganizationProvider');
  return organization;
}

/** The organization whose pages are shown, where there is one. */
export function useOrganizationIfAny(): Organization | null {
  return useContext(OrganizationContext);
}
