// A webhook's events in the log: what happened, when, and who did it.
import { useAsk } from '../../../api/ask';
import { graphql } from '../../../api/graphql';
import { useOrganization, useViewer } from '../../../session/viewer';
import { absolute, useZone } from '../../../time';
import { beginning, visible } from '../../../ui/payload/visible';
import classes from './detail.module.css';
import { offset, toldEvent } from './events';
import type { LogEvent, Webhook } from './queries';

const ActorsQuery = graphql(`
  query WebhookActors($slug: String!, $resourceId: UUID!) {
    organization(slug: $slug) {
      id
      auditLog(filter: { resourceId: $resourceId }, first: 100) { nodes { userId user { id email } } }
    }
  }
`);

export function Timeline({ of: { webhookId, events } }: { of: Webhook }) {
  const zone = useZone();
  const nameOf = useNames(webhookId, events);
  const first = events[0];
  if (!first) return <p className="quiet">No events in the log.</p>;
  return (
    <ol className={classes.timeline}>
      {events.map((event, index) => {
        const { title, detail, tone } = toldEvent(event, (at) => absolute(at, zone));
        return (
          <li key={event.position} data-tone={tone}>
            <span className={classes.offset} title={absolute(event.recordedAt, zone, true)}>
              {index === 0
                ? absolute(event.recordedAt, zone, true).slice(11, 23)
                : offset(first.recordedAt, event.recordedAt)}
            </span>
            <span>
              <b>{title}</b>{' '}
              <span className={`quiet ${classes.by}`}>
                {nameOf(event)}
                {event.client && `, ${event.client}`}
              </span>
              {detail && <bdi className={`foreign quiet ${classes.aside}`}>{visible(beginning(detail, 500))}</bdi>}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

/** The names of users. Members see only their own; admins see all. */
function useNames(webhookId: string, events: readonly LogEvent[]): (event: LogEvent) => string {
  const { slug, canManage } = useOrganization();
  const { user } = useViewer();
  const others = events.some(({ userId }) => userId && userId !== user.userId);
  const { data } = useAsk(ActorsQuery, canManage && others ? { slug, resourceId: webhookId } : null);
  const emails = new Map(data?.organization?.auditLog.nodes.map((entry) => [entry.userId, entry.user?.email]));
  return ({ actor, userId }) => {
    if (actor === 'system') return 'Hookledger';
    if (actor === 'sender') return 'Sender';
    if (userId === user.userId) return 'You';
    return emails.get(userId) ?? (userId ? `User ${userId.slice(0, 8)}…` : 'User');
  };
}
