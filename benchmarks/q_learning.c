/* Tabular Q-learning with epsilon-greedy exploration over a transition table, as one writes it in C.

   The same equations, draws and order as policylab.agents.tabular.q_learning, so that both leave the same
   Q-table; the benchmark checks that they do. Compile with -ffp-contract=off where the target would fuse a
   multiplication with an addition. */

#include <stdint.h>

typedef struct { uint64_t a, b, c, counter; } sfc64; /* C. Doty-Humphrey's generator, as NumPy has it */

static inline double draw(sfc64 *rng) {
    uint64_t word = rng->a + rng->b + rng->counter++;
    rng->a = rng->b ^ (rng->b >> 11);
    rng->b = rng->c + (rng->c << 3);
    rng->c = ((rng->c << 24) | (rng->c >> 40)) + word;
    return (word >> 11) * (1.0 / 9007199254740992.0);
}

/* First index whose cumulative probability exceeds u, by bisection. */
static int first_state(const double *cumulative, int n_states, double u) {
    int low = 0, high = n_states;
    while (low < high) {
        int middle = (low + high) / 2;
        if (cumulative[middle] > u) high = middle;
        else low = middle + 1;
    }
    return low < n_states ? low : 0;
}

typedef struct {
    int n_states, n_actions, n_outcomes, max_episode_steps;
    const double *cumulative, *reward, *initial;
    const int32_t *next_state;
    const uint8_t *terminated;
} table;

typedef struct {
    double learning_rate, discount, epsilon_start, epsilon_end, epsilon_rate;
    int64_t horizon;
} settings;

void q_learning(const table *mdp, const settings *agent, double *q, const uint64_t *seeds, int64_t steps) {
    sfc64 choices = {seeds[0], seeds[1], seeds[2], seeds[3]};
    sfc64 environment = {seeds[4], seeds[5], seeds[6], seeds[7]};
    const int n = mdp->n_actions, outcomes = mdp->n_outcomes;
    int state = first_state(mdp->initial, mdp->n_states, draw(&environment)), length = 0;

    for (int64_t time = 0; time < steps; time++) {
        double epsilon = time < agent->horizon ? agent->epsilon_start + agent->epsilon_rate * time : agent->epsilon_end;
        double *row = q + (int64_t)state * n;
        double u = draw(&choices);
        int action = 0;
        if (u < epsilon) {
            action = (int)(u / epsilon * n);
            if (action >= n) action = n - 1;
        } else {
            double best = row[0];
            int ties = 1;
            for (int i = 1; i < n; i++) {
                if (row[i] > best) { best = row[i]; action = i; ties = 1; }
                else if (row[i] == best) ties++;
            }
            if (ties > 1) {
                int skip = (int)(draw(&choices) * ties);
                for (int i = 0; i < n; i++)
                    if (row[i] == best && skip-- == 0) { action = i; break; }
            }
        }

        double v = draw(&environment);
        int64_t place = ((int64_t)state * n + action) * outcomes;
        int outcome = 0;
        for (int i = 0; i < outcomes; i++)
            if (mdp->cumulative[place + i] > v) { outcome = i; break; }
        place += outcome;
        int next = mdp->next_state[place], terminated = mdp->terminated[place];

        const double *next_row = q + (int64_t)next * n;
        double best = next_row[0];
        for (int i = 1; i < n; i++)
            if (next_row[i] > best) best = next_row[i];
        double target = terminated ? mdp->reward[place] : mdp->reward[place] + agent->discount * best;
        row[action] += agent->learning_rate * (target - row[action]);

        if (terminated || ++length >= mdp->max_episode_steps) {
            if (time + 1 < steps) state = first_state(mdp->initial, mdp->n_states, draw(&environment));
            length = 0;
        } else {
            state = next;
        }
    }
}
