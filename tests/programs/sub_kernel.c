/* SPDX-License-Identifier: Apache-2.0
 *
 * What newer kernels offer, and what goes between processes: io_uring, userfaultfd, pidfds, memory files, queues, filters.
 */
#include "served.h"
#include "subcases.h"
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <ucontext.h>

static int status;

/* One request through a ring of its own. The result, or the error of making the ring. */
static int ring(uint8_t opcode, int fd, void *buffer, uint32_t bytes, uint64_t offset)
{
    struct io_uring_params p = {0};
    int r = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (r < 0)
        return -errno;
    char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, r,
                    IORING_OFF_CQ_RING);
    struct io_uring_sqe *e = mmap(NULL, p.sq_entries * sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQES);
    MUST(sq != MAP_FAILED && cq != MAP_FAILED && e != MAP_FAILED);
    memset(e, 0, sizeof *e);
    e->opcode = opcode;
    e->fd = fd;
    e->addr = (uint64_t)(uintptr_t)buffer;
    e->len = bytes;
    e->off = offset;
    *(uint32_t *)(void *)(sq + p.sq_off.array) = 0;
    __atomic_store_n((uint32_t *)(void *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    MUST(syscall(SYS_io_uring_enter, r, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
    return ((struct io_uring_cqe *)(void *)(cq + p.cq_off.cqes))->res;
}

SUBCASE(ring_nothing)
{
    SHOW(ring(IORING_OP_NOP, -1, NULL, 0, 0));
}

SUBCASE(ring_read_and_write)
{
    char text[10] = "";
    int fd = memfd_create("file", 0);
    SHOW(ring(IORING_OP_WRITE, fd, "written", 7, 0));
    SHOW(ring(IORING_OP_READ, fd, text, 7, 0));
    printf("%s\n", text);
}

static void *serve_faults(void *argument)
{
    static char page[SERVED_PAGE] __attribute__((aligned(SERVED_PAGE))) = "served";
    for (uint64_t at; (at = served_wait());)
        served_give(at, page);
    return argument;
}

SUBCASE(faults_served_by_a_thread)
{
    pthread_t t;
    if (!served_open())
        return;
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(served_register(p, 2));
    pthread_create(&t, NULL, serve_faults, NULL);
    printf("%s %s\n", p, p + 4096);
}

SUBCASE(pidfd_of_a_child)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {fd, POLLIN, 0};
    SHOW(poll(&p, 1, 0));
    SHOW(syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0));
    SHOW(poll(&p, 1, 5000));
    SHOW(waitpid(pid, &status, 0) == pid);
    SHOW(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
}

SUBCASE(descriptor_of_another_process)
{
    int p[2];
    MUST(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(p[1], 50);
        for (;;)
            pause();
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0), got = -1;
    for (int i = 0; i < 500 && (got = (int)syscall(SYS_pidfd_getfd, fd, 50, 0)) < 0; i++)
        sleep_ms(2);
    SHOW(write(got, "x", 1));
    kill(pid, SIGKILL);
}

SUBCASE(memory_file_seals)
{
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    MUST(ftruncate(fd, 4096) == 0);
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    SHOW(write(fd, "x", 1));
    SHOW(ftruncate(fd, 0));
    SHOW(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    SHOW(fcntl(fd, F_GET_SEALS));
}

SUBCASE(event_descriptor)
{
    eventfd_t value;
    int fd = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    for (int i = 0; i < 4; i++)
        SHOW(eventfd_read(fd, &value));
}

SUBCASE(watched_folder)
{
    char buffer[4096] __attribute__((aligned(8)));
    int fd = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE | IN_CLOSE_WRITE);
    close(open("watched", O_CREAT | O_WRONLY, 0600));
    unlink("watched");
    ssize_t n = read(fd, buffer, sizeof buffer);
    for (ssize_t at = 0; at < n;) {
        struct inotify_event *e = (void *)(buffer + at);
        printf("%x %s\n", e->mask, e->name);
        at += (ssize_t)(sizeof *e + e->len);
    }
}

SUBCASE(message_queue)
{
    struct {
        long type;
        char text[20];
    } m = {2, "second"};
    int q = msgget(IPC_PRIVATE, 0600);
    SHOW(msgsnd(q, &m, 7, 0));
    m.type = 1;
    strcpy(m.text, "first");
    SHOW(msgsnd(q, &m, 6, 0));
    SHOW(msgrcv(q, &m, 20, 2, 0));
    printf("%s\n", m.text);
    SHOW(msgrcv(q, &m, 2, 0, 0));
    SHOW(msgrcv(q, &m, 20, -5, IPC_NOWAIT));
    SHOW(msgrcv(q, &m, 20, 0, IPC_NOWAIT));
    msgctl(q, IPC_RMID, NULL);
}

SUBCASE(semaphore_undo)
{
    int s = semget(IPC_PRIVATE, 2, 0600);
    struct sembuf up[2] = {{0, 3, SEM_UNDO}, {1, 1, 0}};
    fflush(stdout);
    if (fork() == 0) {
        semop(s, up, 2);
        printf("%d %d\n", semctl(s, 0, GETVAL), semctl(s, 1, GETVAL));
        exit(0);
    }
    wait(&status);
    printf("%d %d\n", semctl(s, 0, GETVAL), semctl(s, 1, GETVAL));
    semctl(s, 0, IPC_RMID);
}

SUBCASE(shared_segment)
{
    int id = shmget(IPC_PRIVATE, 8192, 0600);
    volatile int *p = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
    if (fork() == 0) {
        p[5] = 77;
        _exit(0);
    }
    wait(&status);
    printf("%d\n", p[5]);
    SHOW(shmdt((const void *)(uintptr_t)p));
    SHOW(shmdt((const void *)(uintptr_t)p));
}

static volatile int notified;
static void note(union sigval value)
{
    notified = value.sival_int;
}

SUBCASE(posix_queue)
{
    struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 16};
    char text[16];
    unsigned priority;
    mqd_t q = mq_open("/bdbi_sub_kernel", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &a);
    mq_unlink("/bdbi_sub_kernel");
    struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = note};
    e.sigev_value.sival_int = 5;
    SHOW(mq_notify(q, &e));
    SHOW(mq_send(q, "low", 4, 1));
    SHOW(mq_send(q, "high", 5, 9));
    for (int i = 0; i < 2500 && !notified; i++)
        sleep_ms(2);
    printf("notified %d\n", notified);
    SHOW(mq_receive(q, text, 16, &priority));
    printf("%s %u\n", text, priority);
    SHOW(mq_receive(q, text, 16, &priority));
    SHOW(mq_receive(q, text, 16, &priority));
}

SUBCASE(descriptors_over_a_socket)
{
    int s[2], p[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0 && pipe(p) == 0);
    char room[CMSG_SPACE(sizeof(int))] = {0}, c = 'x';
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (fork() == 0) {
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &p[1], sizeof(int));
        _exit(sendmsg(s[0], &m, 0) != 1);
    }
    SHOW(recvmsg(s[1], &m, 0));
    int got;
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
    SHOW(write(got, "y", 1));
    SHOW(read(p[0], &c, 1));
    wait(&status);
    print_status("sender", status);
}

SUBCASE(copied_in_the_kernel)
{
    int in = memfd_create("in", 0), out = memfd_create("out", 0), p[2];
    off_t at = 0;
    MUST(write(in, "0123456789", 10) == 10 && pipe(p) == 0);
    SHOW(sendfile(out, in, &at, 4));
    SHOW(copy_file_range(in, &at, out, NULL, 3, 0));
    SHOW(splice(in, &at, p[1], NULL, 3, 0));
    SHOW(splice(p[0], NULL, out, NULL, 3, 0));
    char text[20] = "";
    SHOW(pread(out, text, 19, 0));
    printf("%s\n", text);
}

/* ---- filters ---- */

static void deny(int number, uint32_t action)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, f};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

SUBCASE(filter_error)
{
    deny(SYS_getppid, SECCOMP_RET_ERRNO | 55);
    SHOW(getppid());
    SHOW(getpid() > 0);
}

static void on_sys(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    printf("signal %d code %d number %d, of the instruction before the frame's: %d\n", sig, info->si_code, info->si_syscall,
           info->si_call_addr == (void *)uc->uc_mcontext.gregs[REG_RIP] && ((char *)info->si_call_addr)[-1] == 5);
}

SUBCASE(filter_trap)
{
    struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    deny(SYS_getppid, SECCOMP_RET_TRAP);
    getppid();
    printf("after\n");
    deny(SYS_mremap, SECCOMP_RET_TRAP);
    mremap(action.sa_sigaction, 4096, 8192, 0);
    printf("after\n");
}

SUBCASE(filter_kill)
{
    deny(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    printf("before\n");
    getppid();
}

SUBCASE(filter_kept_over_exec)
{
    deny(SYS_mkdir, SECCOMP_RET_ERRNO | 1);
    deny(SYS_mkdirat, SECCOMP_RET_ERRNO | 1);
    execl("/bin/sh", "sh", "-c", "mkdir folder 2>/dev/null; echo $?", NULL);
}

SUBCASE(filter_of_all_threads)
{
    deny(SYS_getppid, SECCOMP_RET_ERRNO | 56);
    in_child("child", (void (*)(void))getppid);
    SHOW(prctl(PR_GET_SECCOMP));
}

SUBCASE(random_bytes)
{
    unsigned char a[16] = {0}, b[16] = {0};
    SHOW(getrandom(a, 16, 0));
    SHOW(getrandom(b, 16, GRND_NONBLOCK));
    printf("differ %d\n", memcmp(a, b, 16) != 0);
}

SUBCASE(unknown_calls)
{
    SHOW(syscall(10000));
    SHOW(syscall(-1));
    SHOW(syscall(1000000000));
    SHOW(syscall(180 /* nfsservctl */));
}
