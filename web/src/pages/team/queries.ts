// The queries of the team page.
import { graphql, type ResultOf } from '../../api/graphql';
import { SessionFragment } from '../account/Sessions';

export const TeamQuery = graphql(
  `
    query Team($slug: String!, $search: String, $after: String) {
      organization(slug: $slug) {
        id
        users(first: 50, search: $search, after: $after) {
          nodes { id userId email role isActive joinedAt lastLoginAt createdAt sessions { ...SessionFields } }
          pageInfo { hasNextPage endCursor }
        }
      }
    }
  `,
  [SessionFragment],
);

export type Person = NonNullable<ResultOf<typeof TeamQuery>['organization']>['users']['nodes'][number];

export const Invite = graphql(`
  mutation InviteUser($input: InviteUserInput!) {
    inviteUser(input: $input) { user { id } }
  }
`);

export const SetRole = graphql(`
  mutation SetUserRole($id: ID!, $role: Role!) {
    setUserRole(input: { id: $id, role: $role }) { user { id role } }
  }
`);

export const SetActive = graphql(`
  mutation SetUserActive($id: ID!, $isActive: Boolean!) {
    setUserActive(input: { id: $id, isActive: $isActive }) { user { id isActive } }
  }
`);

export const Erase = graphql(`
  mutation EraseUser($id: ID!) {
    eraseUser(input: { id: $id }) { user { id } remains }
  }
`);

export const EndSessions = graphql(`
  mutation EndUserSessions($id: ID!) {
    endUserSessions(input: { userId: $id }) { user { id } }
  }
`);
