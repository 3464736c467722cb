// The queries of the audit trail, and the words of its entries.
import { graphql, type ResultOf, type VariablesOf } from '../../api/graphql';

export const EntryFragment = graphql(`
  fragment AuditRow on AuditEntry @_unmask {
    position at action resourceType resourceId userId sessionId client userAgent changes
    user { id email }
  }
`);

export const AuditQuery = graphql(
  `
    query AuditTrail($slug: String!, $filter: AuditFilter, $after: String) {
      organization(slug: $slug) {
        id
        auditLog(first: 50, filter: $filter, after: $after) {
          nodes { ...AuditRow }
          pageInfo { hasNextPage endCursor }
        }
      }
    }
  `,
  [EntryFragment],
);

export const SystemAuditQuery = graphql(
  `
    query SystemAuditTrail($filter: AuditFilter, $after: String) {
      auditLog(first: 50, filter: $filter, after: $after) {
        nodes { ...AuditRow organization { id slug name } }
        pageInfo { hasNextPage endCursor }
      }
    }
  `,
  [EntryFragment],
);

export type Entry = ResultOf<typeof EntryFragment> & {
  organization?: { id: string; slug: string; name: string } | null;
};
export type ServerFilter = NonNullable<VariablesOf<typeof AuditQuery>['filter']>;

/** Every action, by the type of its resource. */
export const actions = {
  organization: ['created', 'updated', 'activated', 'deactivated', 'bodies_removed'],
  user: [
    'created',
    'invited',
    'joined',
    'signed_in',
    'role_changed',
    'activated',
    'deactivated',
    'session_ended',
    'sessions_ended',
    'sign_in_refused',
    'action_refused',
    'refusals_suppressed',
    'erased',
  ],
  provider: [
    'created',
    'secret_rotated',
    'secret_added',
    'secret_labelled',
    'secret_revoked',
    'activated',
    'deactivated',
    'deleted',
  ],
  destination: ['destination_set', 'outgoing_secret_set', 'deleted'],
  route: ['route_set', 'enabled', 'disabled', 'deleted'],
  delivery: ['retry_requested', 'cancelled'],
  webhook: ['body_erased'],
  usage: ['limit_warned'],
  audit_log: ['exported', 'verified'],
} as const;

export const resourceTypes = Object.keys(actions);
export const allActions = [...new Set<string>(Object.values(actions).flat())].sort();

/** Words for names in the API that people would not use. */
const words: Record<string, string> = {
  audit_log: 'audit trail',
  limit_warned: 'limit warning sent',
  outgoing_secret_set: 'outgoing signing secret set',
  refusals_suppressed: 'repeated refusals counted',
  secret_labelled: 'secret label changed',
  sign_in_refused: 'sign-in refused',
};

const told = (word: string): string => words[word] ?? word.replaceAll('_', ' ');
const capitalized = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** `signed_in` as `Signed in`. */
export const label = (word: string): string => capitalized(told(word));

/** `User signed in`. */
export const summary = ({ resourceType, action }: { resourceType: string; action: string }): string =>
  capitalized(`${told(resourceType)} ${told(action)}`);

/** The user who did it, or a word for others. */
export function actor({ user, userId, action }: Entry): string {
  if (user) return user.email ?? 'Erased user';
  if (userId) return 'Super admin';
  return action === 'sign_in_refused' ? 'Not signed in' : 'System';
}

export type Change = { field: string; old?: string; new?: string };

/** The changed fields, one by one. Values of any type are shown as text. */
export function changesOf(changes: unknown): Change[] {
  if (typeof changes !== 'object' || changes === null) return [];
  const { old: before, new: after } = changes as { old?: unknown; new?: unknown };
  const [was, is] = [new Map(leaves(before)), new Map(leaves(after))];
  return [...new Set([...is.keys(), ...was.keys()])].map((field) => ({
    field,
    old: was.get(field),
    new: is.get(field),
  }));
}

/** `destination.url` and its like: each value by its path, as text. */
function leaves(value: unknown, path: readonly string[] = []): [string, string][] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value) && path.length < 4) {
    return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
  }
  return path.length === 0 ? [] : [[path.join('.'), typeof value === 'string' ? value : JSON.stringify(value)]];
}
