import { useState } from 'react';

import { graphql } from '../../../api/graphql';
import { Confirm } from '../../../ui/Confirm';
import { Remains } from '../../../ui/Remains';
import { useAct } from '../../../ui/useAct';
import type { Webhook } from './queries';

const Erase = graphql(`
  mutation EraseWebhookBody($id: ID!, $reason: String) {
    eraseWebhookBody(input: { webhookId: $id, reason: $reason }) { webhook { id } remains }
  }
`);

/** Erases a webhook's body and headers, and then lists the data that remains. */
export function EraseBody({
  of: { id, webhookId },
  opened,
  close,
  done,
}: {
  of: Webhook;
  opened: boolean;
  close: () => void;
  done: () => void;
}) {
  const erase = useAct(Erase, { quiet: true });
  const [remains, setRemains] = useState<readonly string[]>();
  const run = async (reason: string | undefined) => {
    const answer = await erase.act({ id, reason: reason ?? null });
    if (!answer) return;
    setRemains(answer.eraseWebhookBody.remains);
    close();
    done();
  };
  return (
    <>
      <Confirm
        opened={opened}
        close={close}
        title="Erase body"
        label="Erase body"
        danger
        withReason
        typed={webhookId.slice(-6)}
        busy={erase.busy}
        error={erase.error}
        run={(reason) => void run(reason)}
      >
        This removes the body, the headers, the bodies of duplicates, and the responses from destinations. The webhook
        can't be sent again. Its events stay in the log. This can't be undone.
      </Confirm>
      <Remains of={remains} title="Body erased" close={() => setRemains(undefined)} />
    </>
  );
}
