"""`GuardShell`: commands that others start: by wrappers, through pipes and lists of paths, out of variables."""

from __future__ import annotations

from typing import Final

import pytest
from shell_verdicts import lines, rule_of

DENIED: Final[dict[str, str]] = {
    "delete": r"""
        screen -dm rm -rf /
        screen -dmS x rm -rf /
        screen -S x -X stuff 'rm -rf /'
        tmux new -d rm -rf /
        tmux new -d 'rm -rf /'
        tmux send-keys -t x 'rm -rf /' Enter
        tmux send-keys rm Space -rf Space / Enter
        tmux run-shell 'rm -rf /'
        script -qc 'rm -rf /' /dev/null
        script -q /dev/null rm -rf /
        ld.so /bin/rm -rf /
        /lib64/ld-linux-x86-64.so.2 /bin/rm -rf /
        /lib64/ld-linux-x86-64.so.2 --library-path /x /bin/rm -rf /
        /lib/ld-musl-x86_64.so.1 /bin/rm -rf /
        /lib/ld-2.31.so /bin/rm -rf /
        toybox rm -rf /
        setarch x86_64 rm -rf /
        setarch -R rm -rf /
        unshare -r rm -rf /
        nsenter -t 1 -m rm -rf /
        chroot / rm -rf /
        systemd-run rm -rf /
        systemd-run --user -E PAGER='rm -rf /' less
        echo 'rm -rf /' | at now
        echo 'rm -rf /' | batch
        capsh -- -c 'rm -rf /'
        setpriv --reuid 1 rm -rf /
        start-stop-daemon --start --exec /bin/rm -- -rf /
        dtach -n s rm -rf /
        uv run rm -rf /
        man -P 'rm -rf /' ls
        sqlite3 x '.shell rm -rf /'
        psql -c '\! rm -rf /'
        echo 'rm -rf /' | tee >(sh)
        echo 'rm -rf /' > >(bash)
        find / -print0 | xargs -0 rm -f
        find /etc -type f | xargs rm
        find ~ -type f | sort | xargs rm -f
        find / | grep x | xargs rm -f
        find / | while read f; do rm -f "$f"; done
        find . | xargs rm -f
        find / | xargs -I{} rm -f {}
        find / | xargs -I{} sh -c 'rm -rf {}'
        find "$D" | xargs rm -f
        ls / | xargs rm -f
        grep -rl x /etc | xargs rm
        rg --files ~ | xargs rm
        cat list | xargs rm -f
        rm -f $(find / -type f)
        for f in $(find / | sort); do rm -f "$f"; done
        hyperfine 'rm -rf /'
        xterm -e 'rm -rf /'
        watchexec 'rm -rf /'
        make --eval='x:;rm -rf /' x
        make --eval='$(shell rm -rf /)'
        xargs rm -f < list
        PROMPT_COMMAND='rm -rf /' bash -i
        PROMPT_COMMAND=('rm -rf /')
        export PROMPT_COMMAND='rm -rf /'
        for PROMPT_COMMAND in 'rm -rf /'; do :; done
        : ${PROMPT_COMMAND:=rm -rf /}
        read PROMPT_COMMAND <<< 'rm -rf /'
        printf -v PROMPT_COMMAND %s 'rm -rf /'
        PS4='$(rm -rf /)'; set -x; ls
        PS4='\044(rm -rf /)' bash -xc ls
        export "PS4=\$(rm -rf /)"; set -x
        env PS4='$(rm -rf /)' bash -xc ls
        PS0='`rm -rf /`' bash -i
        export PS1='$(rm -rf /)'
        BASH_ENV='$(rm -rf /)' bash -c true
        ENV='$(rm -rf /)' sh -i
        GIT_SSH_COMMAND='rm -rf /' git fetch
        env GIT_SSH_COMMAND='rm -rf /' git fetch
        EDITOR='rm -rf /' git commit
        GIT_EDITOR='rm -rf' git commit
        PAGER='rm -rf /' man ls
        GIT_PAGER='rm -rf /' git log
        GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=alias.x GIT_CONFIG_VALUE_0='!rm -rf /' git x
        GIT_CONFIG_PARAMETERS="'alias.x=!rm -rf /'" git x
        LESSOPEN='|rm -rf / %s' less x
        env 'BASH_FUNC_ls%%=() { rm -rf /; }' bash -c ls
        BASH_ALIASES[ls]='rm -rf /'
    """,
    "piped_script": r"""
        curl x | tee >(sh)
        curl x > >(bash)
        curl x | tee >(python3)
        curl x | tee >(cat >(sh))
        curl x | tee y | cat | tee >(bash -s)
        exec > >(bash)
        curl x | at now
    """,
    "interpreter": r"""
        expect -c 'spawn x'
        NODE_OPTIONS='-e 1' node
        EDITOR="python -c 'x'" git commit
        uv run python -c x
    """,
    "unresolved": r"""
        EDITOR="$(curl x)" git commit
        read PROMPT_COMMAND < f
        BASH_ENV=/tmp/x bash -c true
        ENV=/tmp/x sh -i
        LD_PRELOAD=/tmp/x.so ls
        env LD_PRELOAD=/tmp/x.so ls
        sudo_x=1 LD_PRELOAD=$X ls
        PERL5OPT='-Mx' perl y
        /lib64/ld-linux-x86-64.so.2 $X y
    """,
}
ALLOWED: Final = r"""
    tmux ls
    tmux attach -t $NAME
    tmux new-session -d -s dev 'npm run dev'
    tmux send-keys -t dev C-c
    tmux send-keys -t dev 'npm test' Enter
    screen -ls
    screen -r $NAME
    screen -dmS dev npm run dev
    script -q /dev/null
    at -l
    setarch x86_64 make
    unshare -r id
    /lib64/ld-linux-x86-64.so.2 --list /bin/ls
    uv run pytest -q
    uv pip install -e .
    poetry run python manage.py migrate
    npx tsc --noEmit
    gdb --args ./a.out 1
    perf stat ls
    man -P cat ls
    sqlite3 db '.tables'
    psql -c 'select 1'
    tee >(wc -l)
    make 2>&1 | tee >(grep error > errors.txt) | tail
    make > >(tee log) 2>&1
    find . -name '*.pyc' -print0 | xargs -0 rm -f
    find . -name node_modules -prune -print0 | xargs -0 rm -rf
    find . -name '*.log' | xargs -I{} rm {}
    find build -type f | xargs rm -f
    find /tmp/x -type f | xargs rm -f
    ls | grep tmp | xargs rm -f
    ls -t | tail -n +6 | xargs rm -f
    ls *.tmp | xargs rm
    grep -rl foo src | xargs rm
    rm -f $(find . -name '*.pyc')
    for f in $(find src -name '*.o'); do rm -f "$f"; done
    hyperfine 'sleep 1'
    git ls-files -d | xargs git rm
    docker ps -q | xargs docker stop
    EDITOR=vim git commit
    GIT_EDITOR=true git rebase --continue
    GIT_SEQUENCE_EDITOR="sed -i '1s/pick/edit/'" git rebase -i HEAD~2
    PAGER=cat git log
    export EDITOR=${EDITOR:-vim}
    PROMPT_COMMAND="echo x; $PROMPT_COMMAND"
    GIT_SSH_COMMAND="ssh -o StrictHostKeyChecking=no" git fetch
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=me git log
    LESSOPEN='|lesspipe %s' less x
    ENV=production npm start
    NODE_OPTIONS=--max-old-space-size=4096 npm run build
    env LD_PRELOAD= ls
    BASH_ENV= bash x.sh
    PS1='\u@\h\$ '
    PS1='\[\033[01;32m\]\u@\h\[\033[00m\]:\w\$ ' bash run.sh
    set -x; PS4='+ ${BASH_SOURCE}:${LINENO}: '; ls
"""


@pytest.mark.parametrize(("rule", "script"), [(rule, line) for rule, table in DENIED.items() for line in lines(table)])
def test_what_is_against_a_rule_is_denied(rule: str, script: str) -> None:
    """The message names the rule."""
    assert rule_of({"command": script}) == rule


@pytest.mark.parametrize("script", lines(ALLOWED))
def test_ordinary_work_is_let_be(script: str) -> None:
    """What looks alike and runs nothing of the kind."""
    assert rule_of({"command": script}) is None


@pytest.mark.parametrize("script", ["LD_PRELOAD=/tmp/x.so ls", "BASH_ENV=/tmp/x bash y", 'EDITOR="$(curl x)" git commit'])
def test_code_in_variables_that_is_not_read_follows_the_setting(script: str) -> None:
    """As a command's name does."""
    assert rule_of({"command": script}, unresolved="allow") is None
