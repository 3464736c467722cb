// The steps of the wizard, and which of them can be opened.
import type { ProviderKind } from '../../ui/ProviderName';
import { guides } from './Guide';

export type Step = 'service' | 'secret' | 'address' | 'destination' | 'first';

export const stepWords: Record<Step, string> = {
  service: 'Service',
  secret: 'Secret',
  address: 'Webhook URL',
  destination: 'Destination',
  first: 'First webhook',
};

/** Some services show their secret only after they have the URL. For the others, the secret comes first. */
export function stepsOf(kind: ProviderKind | undefined): readonly Step[] {
  return kind && guides[kind].addressFirst
    ? ['service', 'address', 'secret', 'destination', 'first']
    : ['service', 'secret', 'address', 'destination', 'first'];
}

/** The step in the address, or the last one before it that is possible. */
export function stepAt(asked: string | undefined, kind: ProviderKind | undefined, isConnected: boolean): Step {
  if (!kind) return 'service';
  const steps = stepsOf(kind);
  const wanted = steps.indexOf(asked as Step);
  const reachable = isConnected ? steps.length - 1 : steps.indexOf('secret');
  return steps[Math.min(wanted < 0 ? 1 : wanted, reachable)] ?? 'service';
}
