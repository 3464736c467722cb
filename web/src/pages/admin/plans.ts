// The plans, and their limits.
import { count } from '../../format';

export type Plan = 'FREE' | 'STARTER' | 'PREMIUM';

export const plans: Record<Plan, { word: string; limit: number | null }> = {
  FREE: { word: 'Free', limit: 1000 },
  STARTER: { word: 'Starter', limit: 50_000 },
  PREMIUM: { word: 'Premium', limit: null },
};

export const planChoices = (Object.keys(plans) as Plan[]).map((value) => ({
  value,
  label: `${plans[value].word} (${limitWord(plans[value].limit)})`,
}));

export function limitWord(limit: number | null): string {
  return limit === null ? 'unlimited' : `${count(limit)} webhooks per month`;
}
