//! The protocol, tried: the product's own backup, prune, compaction, copy, adopt, rekey and restore over a simulated store.
//!
//! **The model.** Processes run on one thread. Each talks to the store through a *wire*: a request lies there until the scheduler
//! lets it *land* (then it takes effect, all at once) and until its answer arrives, which are two steps. In between, before and instead, a process may
//! stand still, die or be told that nobody knows; hours pass by the store's one clock; a write lands long after its process
//! is dead, or twice. Chance decides, from one seed. The *truth* looks after every request: each listed
//! snapshot is complete and indexed. In the end all are dropped, and prunes must leave no garbage.
//!
//! **Where things are.** `worlds`: who lives together, and how much goes wrong. `processes`: what each does. `repo::bugs`: the rules of
//! the protocol that can be turned off, to see that the simulation is not blind. `tests`: how many seeds, and which bug is found
//! with how many. One seed alone: see `tests`.

mod again;
mod homeserver;
mod late;
mod pause;
mod processes;
mod rng;
mod scheduler;
mod site;
mod tests;
mod truth;
mod wire;
mod worlds;
