// SPDX-License-Identifier: Apache-2.0
// The least that builds the same walls as msb-jail, to compare with: no checks, no messages, no plan for other cases.
//
//   bench_walls                             reads a specification on standard input, builds the walls, becomes the agent
//   bench_walls SPEC INPUT PROGRAM [ARG...] for each line on standard input: makes directories and cgroups, runs PROGRAM
//                                           with INPUT as its standard input, greets the agent, and prints the agent's
//                                           pid and how long the three took, in nanoseconds; for the next line, removes
//                                           all again, and prints an empty one
//
// A specification has one record in each line, its words divided by tabs; e2e/bench_walls.py writes it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORDS_MAX = 1024, WORDS_MAX = 5, HELLO = 1, WELCOME = 17, GREETING_SECONDS = 10 };
#define CHECK(call) check((long)(call), #call)
#define EACH(name) for (struct record *r = records; r < records + count; r++) if (!strcmp(r->word[0], name))

static struct record { char *word[WORDS_MAX]; } records[RECORDS_MAX];
static int count;

static long check(long result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        _exit(1);
    }
    return result;
}

static void read_specification(int fd) {
    static char text[1 << 20];
    size_t length = 0;
    for (long got; (got = CHECK(read(fd, text + length, sizeof text - 1 - length))) > 0;) length += got;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && *line && count < RECORDS_MAX) {
        for (int i = 0; i < WORDS_MAX; i++) records[count].word[i] = strsep(&line, "\t");
        count++;
    }
}

static char *text_of(const char *name) {
    EACH(name) return r->word[1];
    errno = ENOENT;
    CHECK(-1);
    return NULL;
}

static unsigned long number_of(const char *name) { return strtoul(text_of(name), NULL, 10); }

static void write_text(const char *path, const char *text) {
    int fd = CHECK(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    CHECK(write(fd, text, strlen(text)));
    close(fd);
}

// The walls

// Makes a mount that is attached nowhere; then come keys and values, and NULL.
static int new_mount(const char *type, unsigned attributes, ...) {
    int context = CHECK(fsopen(type, FSOPEN_CLOEXEC));
    va_list options;
    va_start(options, attributes);
    for (const char *key; (key = va_arg(options, const char *));) {
        const char *value = va_arg(options, const char *);
        CHECK(fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0));
    }
    va_end(options);
    CHECK(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = CHECK(fsmount(context, FSMOUNT_CLOEXEC, attributes));
    close(context);
    return mount;
}

static void set_attributes(int mount, uint64_t set, int flags, int user_namespace) {
    struct mount_attr attributes = {.attr_set = set, .userns_fd = user_namespace};
    CHECK(mount_setattr(mount, "", AT_EMPTY_PATH | flags, &attributes, sizeof attributes));
}

static int copy_mount(int of) {
    return CHECK(open_tree(of, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
}

static int beneath(int root, const char *path) {
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return syscall(SYS_openat2, root, path + 1, &how, sizeof how);
}

static void attach_on(int mount, int target) {
    CHECK(move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
    close(target);
}

static void attach(int root, int mount, const char *path) {
    mkdirat(root, path + 1, 0755);
    attach_on(mount, CHECK(beneath(root, path)));
}

static int overlay(int user_namespace) {
    char lowers[4096] = "", upper[64], work[64];
    EACH("lower") {
        int layer = CHECK(open_tree(AT_FDCWD, r->word[1], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
        set_attributes(layer, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_IDMAP, 0, user_namespace);
        CHECK(move_mount(layer, "", AT_FDCWD, text_of("scratch"), MOVE_MOUNT_F_EMPTY_PATH));
        sprintf(lowers + strlen(lowers), "%s/proc/self/fd/%d", *lowers ? ":" : "", layer);
    }
    sprintf(upper, "/proc/self/fd/%ld", CHECK(open(text_of("upper"), O_PATH | O_CLOEXEC)));
    sprintf(work, "/proc/self/fd/%ld", CHECK(open(text_of("work"), O_PATH | O_CLOEXEC)));
    return new_mount("overlay", MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, "source", "root", "lowerdir", lowers, "upperdir",
                     upper, "workdir", work, "redirect_dir", "on", "volatile", NULL, NULL);
}

static int device_tree(void) {
    char *owner = text_of("first"), *directories[] = {"pts", "shm", "mqueue"};
    uid_t id = strtoul(owner, NULL, 10);
    int dev = new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "source", "dev", "mode", "0755", "size", "64k",
                        "nr_inodes", "64", "uid", owner, "gid", owner, NULL);
    EACH("device") {
        CHECK(mknodat(dev, r->word[1], S_IFCHR | 0666, makedev(atoi(r->word[2]), atoi(r->word[3]))));
        CHECK(fchmodat(dev, r->word[1], 0666, 0));
        CHECK(fchownat(dev, r->word[1], id, id, AT_SYMLINK_NOFOLLOW));
    }
    EACH("link") {
        CHECK(symlinkat(r->word[2], dev, r->word[1]));
        CHECK(fchownat(dev, r->word[1], id, id, AT_SYMLINK_NOFOLLOW));
    }
    for (int i = 0; i < 3; i++) {
        CHECK(mkdirat(dev, directories[i], 0755));
        CHECK(fchownat(dev, directories[i], id, id, AT_SYMLINK_NOFOLLOW));
    }
    return dev;
}

static void build_root(int root, int dev) {
    const unsigned strict = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    CHECK(move_mount(root, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH));
    CHECK(fchdir(root));
    attach(root, new_mount("proc", strict, "source", "proc", NULL), "/proc");
    attach(root, new_mount("sysfs", strict | MOUNT_ATTR_RDONLY, "source", "sysfs", NULL), "/sys");
    attach(root, dev, "/dev");
    attach(root, new_mount("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "source", "devpts", "newinstance", NULL,
                           "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL), "/dev/pts");
    attach(root, new_mount("mqueue", strict, "source", "mqueue", NULL), "/dev/mqueue");
    attach(root, new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "source", "tmpfs", "size", text_of("shm"),
                           "mode", "1777", NULL), "/dev/shm");
    int target;
    EACH("readonly") if ((target = beneath(root, r->word[1])) >= 0) {
        int copy = copy_mount(target);
        set_attributes(copy, MOUNT_ATTR_RDONLY | strict, AT_RECURSIVE, 0);
        attach_on(copy, target);
    }
    int null = CHECK(beneath(root, "/dev/null")), is_attached = 0;
    int empty = new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "source", "tmpfs", "size", "4096", "mode",
                          "0555", NULL);
    set_attributes(empty, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC, 0, 0);
    EACH("masked") if ((target = beneath(root, r->word[1])) >= 0) {
        struct stat status;
        CHECK(fstat(target, &status));
        int is_directory = S_ISDIR(status.st_mode), first = is_directory && !is_attached++;
        int cover = first ? empty : copy_mount(is_directory ? empty : null);
        if (!first) set_attributes(cover, MOUNT_ATTR_RDONLY, 0, 0);
        attach_on(cover, target);
    }
    set_attributes(dev, MOUNT_ATTR_RDONLY, 0, 0);
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
}

static void limit(int resource, rlim_t most) {
    struct rlimit now;
    CHECK(getrlimit(resource, &now));
    if (now.rlim_max > most) now.rlim_max = most;
    if (now.rlim_cur > now.rlim_max) now.rlim_cur = now.rlim_max;
    CHECK(setrlimit(resource, &now));
}

static void drop_capabilities(void) {
    uint64_t kept = 0;
    EACH("capability") kept |= 1ULL << atoi(r->word[1]);
    for (int number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++)
        if (!(kept >> number & 1)) CHECK(prctl(PR_CAPBSET_DROP, number, 0, 0, 0));
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};
    CHECK(syscall(SYS_capset, &header, sets));
}

static void install_filter(void) {
    static struct sock_filter filter[4096];
    struct sock_fprog program = {.filter = filter};
    for (char *at = text_of("filter"); *at; program.len++) {
        struct sock_filter *one = &filter[program.len];
        one->code = strtoul(at, &at, 10);
        one->jt = strtoul(at, &at, 10);
        one->jf = strtoul(at, &at, 10);
        one->k = strtoul(at, &at, 10);
    }
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static int received(int from) {
    char byte, space[CMSG_SPACE(sizeof(int))];
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (CHECK(recvmsg(from, &message, MSG_CMSG_CLOEXEC)) != 1 || !CMSG_FIRSTHDR(&message)) _exit(1);
    return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
}

static void hand_over(int to, int fd) {
    char byte = 1, space[CMSG_SPACE(sizeof(int))] = "";
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    CHECK(sendmsg(to, &message, MSG_NOSIGNAL));
}

struct opened { int socket, agent, program_tasks, dev, cgroups, cgroup[16]; };

static void inside(struct opened *opened, int from) {
    int root = received(from);
    for (int i = 0; i < opened->cgroups; i++) CHECK(write(opened->cgroup[i], "0", 1));
    CHECK(unshare(CLONE_NEWCGROUP));
    CHECK(setgroups(0, NULL));
    CHECK(setresgid(0, 0, 0));
    CHECK(setresuid(0, 0, 0));
    CHECK(sethostname(text_of("hostname"), strlen(text_of("hostname"))));
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    CHECK(ioctl(CHECK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), SIOCSIFFLAGS, &loopback));
    build_root(root, opened->dev);
    CHECK(listen(opened->socket, 128));
    limit(RLIMIT_NOFILE, number_of("files"));
    limit(RLIMIT_CORE, 1);
    limit(RLIMIT_MEMLOCK, 64 * 1024);
    drop_capabilities();
    int config = CHECK(memfd_create("config", MFD_CLOEXEC)), null = CHECK(open("/dev/null", O_RDWR | O_CLOEXEC));
    CHECK(write(config, text_of("config"), strlen(text_of("config"))));
    CHECK(lseek(config, 0, SEEK_SET));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    // Whoever waits for the end of the output waits for the exec.
    CHECK(fcntl(1, F_DUPFD_CLOEXEC, 6));
    int placed[] = {null, null, 2, opened->socket, config, opened->program_tasks};
    for (int i = 0; i < 6; i++) if (i != 2) CHECK(dup2(placed[i], i));
    CHECK(close_range(6, ~0U, CLOSE_RANGE_CLOEXEC));
    install_filter();
    char *name[] = {"msb-agent", NULL}, *none[] = {NULL};
    CHECK(execveat(opened->agent, "", name, none, AT_EMPTY_PATH));
}

static int bound_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, text_of("socket"), sizeof address.sun_path - 1);
    int fd = CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address));
    return fd;
}

static void build_walls(void) {
    for (int number = 3; number <= 5; number++) CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    read_specification(0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){1, 1});
    CHECK(unshare(CLONE_NEWNS));
    CHECK(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
    struct opened opened = {.socket = bound_socket(), .agent = CHECK(open(text_of("agent"), O_PATH | O_CLOEXEC))};
    EACH("enter") opened.cgroup[opened.cgroups++] = CHECK(open(r->word[1], O_WRONLY | O_CLOEXEC));
    opened.program_tasks = CHECK(open(text_of("programs"), O_WRONLY | O_CLOEXEC));
    opened.dev = device_tree();
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    struct clone_args new = {.flags = CLONE_PARENT | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
                                      CLONE_NEWIPC | CLONE_NEWUTS};
    uid_t owner = number_of("first");
    CHECK(setresuid(owner, owner, 0));
    long pid = CHECK(syscall(SYS_clone3, &new, sizeof new));
    if (pid) CHECK(setresuid(0, 0, 0));
    if (pid == 0) {
        close(ends[0]);
        inside(&opened, ends[1]);
    }
    char line[64], path[64];
    CHECK(write(1, line, sprintf(line, "{\"started\":{\"pid\":%ld}}\n", pid)));
    sprintf(line, "0 %lu %lu\n", number_of("first"), number_of("ids"));
    for (int i = 0; i < 2; i++) {
        sprintf(path, "/proc/%ld/%s", pid, i ? "gid_map" : "uid_map");
        write_text(path, line);
    }
    CHECK(setpriority(PRIO_PROCESS, pid, -20));
    sprintf(path, "/proc/%ld/ns/user", pid);
    hand_over(ends[0], overlay(CHECK(open(path, O_RDONLY | O_CLOEXEC))));
}

// One sample after the other

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

static void prepare(void) {
    uid_t owner = number_of("first");
    EACH("make") {
        CHECK(mkdir(r->word[1], 0755));
        if (!r->word[2]) continue;
        CHECK(chmod(r->word[1], strtoul(r->word[2], NULL, 8)));
        CHECK(chown(r->word[1], owner, owner));
    }
    EACH("preset") {
        write_text(r->word[1], r->word[2]);
        CHECK(chmod(r->word[1], 0644));
        CHECK(chown(r->word[1], owner, owner));
    }
    EACH("cgroup") CHECK(mkdir(r->word[1], 0755));
    EACH("set") write_text(r->word[1], r->word[2]);
}

// Runs the program and returns the pid of the agent: the program has ended, and the agent was executed.
static pid_t run(const char *input, char **program) {
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    pid_t pid, agent = 0;
    char *none[] = {NULL}, said[4096];
    errno = posix_spawn(&pid, program[0], &actions, NULL, program, none);
    CHECK(errno ? -1 : 0);
    close(ends[1]);
    size_t length = 0;
    for (long got; (got = CHECK(read(ends[0], said + length, sizeof said - 1 - length))) > 0;) length += got;
    said[length] = 0;
    close(ends[0]);
    int status;
    CHECK(waitpid(pid, &status, 0));
    if (status || sscanf(said, "{\"started\":{\"pid\":%d}}", &agent) != 1 || strstr(said, "failed")) {
        fprintf(stderr, "%s: %s\n", program[0], said);
        exit(1);
    }
    return agent;
}

static void greet(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, text_of("socket"), sizeof address.sun_path - 1);
    int fd = CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){GREETING_SECONDS, 0}, sizeof(struct timeval)));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address));
    char frame[4096], *hello = text_of("hello");
    uint32_t length = strlen(hello) + 1;
    memcpy(frame, &length, 4);
    frame[4] = HELLO;
    memcpy(frame + 5, hello, length - 1);
    CHECK(send(fd, frame, 4 + length, MSG_NOSIGNAL));
    long got = CHECK(recv(fd, frame, sizeof frame - 1, 0));
    if (got < 5 || frame[4] != WELCOME) {
        fprintf(stderr, "no welcome: %.*s\n", got > 5 ? (int)got - 5 : 0, frame + 5);
        exit(1);
    }
    close(fd);
}

static int remove_one(const char *path, const struct stat *status, int flag, struct FTW *walk) {
    (void)status, (void)flag, (void)walk;
    return remove(path);
}

static void tear_down(pid_t agent) {
    CHECK(kill(agent, SIGKILL));
    CHECK(waitpid(agent, NULL, __WALL));
    for (struct record *r = records + count; r-- > records;) {
        if (strcmp(r->word[0], "cgroup")) continue;
        // The kernel may still count the dead.
        while (rmdir(r->word[1]) < 0 && errno == EBUSY) usleep(1000);
    }
    CHECK(nftw(text_of("make"), remove_one, 16, FTW_DEPTH | FTW_PHYS));
}

int main(int argc, char **argv) {
    if (argc == 1) {
        build_walls();
        return 0;
    }
    if (argc < 4) return 2;
    read_specification(CHECK(open(argv[1], O_RDONLY | O_CLOEXEC)));
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long began = now();
        prepare();
        long prepared = now();
        pid_t agent = run(argv[2], argv + 3);
        long ran = now();
        greet();
        long greeted = now();
        printf("%d %ld %ld %ld\n", agent, prepared - began, ran - prepared, greeted - ran);
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) return 1;
        tear_down(agent);
        puts("");
        fflush(stdout);
    }
    return 0;
}
