import { type ComponentType, type ReactNode, useEffect, useState } from 'react';

import { ErrorCard } from './ErrorCard';
import { PageLoading } from './PageLoading';

/** A page whose code comes when it is first asked for. */
export type Later = {
  (): ReactNode;
  /** Lets the code come. */
  begin: () => Promise<unknown>;
};

/** Not React's `lazy`: what that has suspended is shown a third of a second later, however soon it is there. */
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
