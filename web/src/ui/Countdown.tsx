import { useEffect, useState } from 'react';

/** `in 1 min 5 s`, second by second; `now` once it is over. */
export function Countdown({ to }: { to: string | null | undefined }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  if (!to) return <>not scheduled</>;
  const left = Math.ceil((Date.parse(to) - now) / 1000);
  if (left <= 0) return <>now</>;
  const minutes = Math.floor(left / 60);
  return (
    <time dateTime={to} role="timer">
      in {minutes > 0 && `${minutes} min `}
      {left % 60} s
    </time>
  );
}
