// The steps of the wizard, and which of them can be gone to.
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

/** Some services tell their secret only once they know the address; for the others the secret comes first. */
export function stepsOf(kind: ProviderKind | undefined): readonly Step[] {
  return kind && guides[kind].addressFirst
    ? ['service', 'address', 'secret', 'destination', 'first']
    : ['service', 'secret', 'address', 'destination', 'first'];
}

/** The step that the address asks for, or the last one before it that makes sense. */
export function stepAt(asked: string | undefined, kind: ProviderKind | undefined, isConnected: boolean): Step {
  if (!kind) return 'service';
  const steps = stepsOf(kind);
  const wanted = steps.indexOf(asked as Step);
  const reachable = isConnected ? steps.length - 1 : steps.indexOf('secret');
  return steps[Math.min(wanted < 0 ? 1 : wanted, reachable)] ?? 'service';
}
