"""The numbers that `policylab verify` calls "second implementation", made again.

The book prints some results only as figures. So that they can be compared to a digit, this script simulates the
same experiments with nothing of policylab: environments written out by hand, all runs advanced together in NumPy,
another random generator (PCG64). It prints mean and standard error over runs.

    python benchmarks/second_implementation.py [--runs 400]
"""

import argparse

import numpy as np

EPSILON = 0.1


def greedy_with_ties(q, rng):
    """One greedy action per row of q, ties broken at random."""
    best = q == q.max(axis=1, keepdims=True)
    return (best * (rng.random(q.shape) + 1e-12)).argmax(axis=1)


def epsilon_greedy(q, rng):
    explore = rng.random(len(q)) < EPSILON
    return np.where(explore, rng.integers(q.shape[1], size=len(q)), greedy_with_ties(q, rng))


def cliff_step(state, action):
    """Example 6.6: 4 x 12, up right down left; the cliff sends back to the start and costs 100."""
    row, column = state // 12, state % 12
    row = np.clip(row + np.array([-1, 0, 1, 0])[action], 0, 3)
    column = np.clip(column + np.array([0, 1, 0, -1])[action], 0, 11)
    fell = (row == 3) & (column > 0) & (column < 11)
    reached = (row == 3) & (column == 11)
    return np.where(fell, 36, row * 12 + column), np.where(fell, -100.0, -1.0), reached


def windy_step(state, action):
    """Example 6.5: 7 x 10, wind of the column left blows upwards."""
    wind = np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    row, column = state // 10, state % 10
    up, right = np.array([-1, 0, 1, 0])[action], np.array([0, 1, 0, -1])[action]
    row = np.clip(row + up - wind[column], 0, 6)
    column = np.clip(column + right, 0, 9)
    return row * 10 + column, np.full(len(state), -1.0), (row == 3) & (column == 7)


def target(q, rule, *, state, action):
    rows = q[np.arange(len(q)), state]
    if rule == "q_learning":
        return rows.max(axis=1)
    if rule == "sarsa":
        return rows[np.arange(len(q)), action]
    best = rows == rows.max(axis=1, keepdims=True)
    return EPSILON * rows.mean(axis=1) + (1 - EPSILON) * (rows * best).sum(axis=1) / best.sum(axis=1)


def control(world, rule, *, alpha, n_runs, n_episodes=None, n_steps=None, seed=0):
    """Returns per episode, shape (n_runs, n_episodes), or with n_steps the number of episodes ended, (n_runs,)."""
    step, start, n_states = world
    rng, each = np.random.default_rng(seed), np.arange(n_runs)
    q = np.zeros((n_runs, n_states, 4))
    state = np.full(n_runs, start)
    action = epsilon_greedy(q[each, state], rng)
    episode = np.zeros(n_runs, dtype=int)
    returns = np.zeros((n_runs, n_episodes or 1))
    time, active = 0, np.ones(n_runs, dtype=bool)
    while active.any() and time != n_steps:
        following, reward, ended = step(state, action)
        chosen = epsilon_greedy(q[each, following], rng)
        bootstrap = np.where(ended, 0.0, target(q, rule, state=following, action=chosen))
        delta = reward + bootstrap - q[each, state, action]
        q[each[active], state[active], action[active]] += alpha * delta[active]
        if rule != "sarsa":  # SARSA keeps the action it looked ahead to; the others choose after learning
            chosen = epsilon_greedy(q[each, following], rng)
        if n_episodes:
            returns[each[active], episode[active]] += reward[active]
        episode += ended & active
        state = np.where(ended, start, following)
        action = np.where(ended, epsilon_greedy(q[each, state], rng), chosen)
        if n_episodes:
            active = episode < n_episodes
        time += 1
    return returns if n_episodes else episode


def walk_errors(n, alpha, *, n_runs, seed=0):
    """Figure 7.2: n-step TD on the 19-state walk, RMS error over states, mean of ten episodes, per run."""
    rng, true = np.random.default_rng(seed), np.arange(-18, 20, 2) / 20
    errors = np.zeros(n_runs)
    for run in range(n_runs):
        values = np.zeros(21)
        for _ in range(10):
            states, rewards = [10], [0.0]
            while 0 < states[-1] < 20:
                states.append(states[-1] + (1 if rng.random() < 0.5 else -1))
                rewards.append({0: -1.0, 20: 1.0}.get(states[-1], 0.0))
            end = len(states) - 1
            for tau in range(end):  # updates in the order in which the book's loop makes them
                g = sum(rewards[tau + 1 : min(tau + n, end) + 1])
                if tau + n < end:
                    g += values[states[tau + n]]
                values[states[tau]] += alpha * (g - values[states[tau]])
            errors[run] += np.sqrt(np.mean((values[1:20] - true) ** 2)) / 10
    return errors


def left_fraction(double, *, n_runs, seed=0):
    """Figure 6.5: fraction of runs that take left in each of 300 episodes; ten actions in B."""
    rng, alpha = np.random.default_rng(seed), 0.1
    each, n_tables = np.arange(n_runs), 1 + double
    a, b = np.zeros((n_tables, n_runs, 2)), np.zeros((n_tables, n_runs, 10))
    fractions = []
    for _ in range(300):
        left = epsilon_greedy(a.sum(axis=0), rng) == 0
        fractions.append(left.mean())
        reward = rng.normal(-0.1, 1.0, n_runs)
        in_b = epsilon_greedy(b.sum(axis=0), rng)
        learns = rng.integers(n_tables, size=n_runs)  # which table moves, drawn for each of the two steps
        judge = n_tables - 1 - learns
        best = greedy_with_ties(b[learns, each], rng)
        bootstrap = np.where(left, b[judge, each, best], 0.0)
        arm = np.where(left, 0, 1)
        a[learns, each, arm] += alpha * (bootstrap - a[learns, each, arm])
        learns = rng.integers(n_tables, size=n_runs)
        change = alpha * (reward - b[learns, each, in_b])
        b[learns[left], each[left], in_b[left]] += change[left]
    return np.array(fractions)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    n_runs = parser.parse_args().runs
    cliff, windy = (cliff_step, 36, 48), (windy_step, 30, 70)

    def row(name, samples):
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        print(f"{name:55s} {samples.mean():10.3f} ± {error:.3f}", flush=True)

    for rule in ("sarsa", "q_learning", "expected_sarsa"):
        late = control(cliff, rule, alpha=0.5, n_runs=n_runs, n_episodes=500)[:, 400:]
        row(f"cliff, episodes 401 to 500, {rule}, alpha 0.5", late.mean(axis=1))
        for alpha in (0.5, 0.9):
            early = control(cliff, rule, alpha=alpha, n_runs=n_runs, n_episodes=100)
            row(f"cliff, first 100 episodes, {rule}, alpha {alpha}", early.mean(axis=1))
    row("windy, episodes in 8,000 steps", control(windy, "sarsa", alpha=0.5, n_runs=n_runs, n_steps=8000).astype(float))
    for n, alpha in ((1, 0.8), (4, 0.4)):
        row(f"19-state walk, {n}-step TD, alpha {alpha}", walk_errors(n, alpha, n_runs=min(n_runs, 1000)))
    for double in (0, 1):
        left = left_fraction(double, n_runs=n_runs)
        name = "Double Q-learning" if double else "Q-learning"
        print(
            f"maximization bias, {name}: peak {left.max():.3f}, episode 22 {left[21]:.3f}, episode 300 {left[-1]:.3f}"
        )


if __name__ == "__main__":
    main()
