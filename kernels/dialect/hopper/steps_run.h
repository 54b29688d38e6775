// steps_run.h - behind steps.cu: the host's way in.
extern "C" const char* steps_run(const Program* program, uint steps, uint groups, uint threads, size_t shared_bytes, ulong seed) {
    struct Given {
        const Program* program;
        uint steps;
    } given = {program, steps};
    const auto run = [](const void* p) { thermite_steps(*((const Given*)p)->program, ((const Given*)p)->steps); };
    return residents_run(run, &given, groups, threads, shared_bytes, seed);
}
