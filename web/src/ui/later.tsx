import { type ComponentType, type ReactNode, useEffect, useState } from 'react';

import { ErrorCard } from './ErrorCard';
import { PageLoading } from './PageLoading';

/** A page whose code is loaded when it is first needed. */
export type Later = {
  (): ReactNode;
  /** Starts loading the code. */
  begin: () => Promise<unknown>;
};

/** Replaces React's `lazy`, which shows a suspended page a third of a second late, even if it is loaded at once. */
export function later(load: () => Promise<{ default: ComponentType }>): Later {
  let Content: ComponentType | undefined;
  let coming: Promise<unknown> | undefined;
  const begin = () => {
    coming ??= load().then((module) => {
      Content = module.default;
    });
    return coming;
  };
  // biome-ignore lint/correctness/noComponentHookFactories: each page is made once, when the program begins
  function Page() {
    const [, arrived] = useState(false);
    const [error, setError] = useState<Error>();
    useEffect(() => {
      if (!Content) begin().then(() => arrived(true), setError);
    }, []);
    // After an update of the server, the old code is gone.
    if (error)
      return (
        <ErrorCard
          title="Couldn't load this page"
          error={new Error('Try again. A new version may have been released.')}
          again={() => location.reload()}
        />
      );
    return Content ? <Content /> : <PageLoading />;
  }
  return Object.assign(Page, { begin });
}
