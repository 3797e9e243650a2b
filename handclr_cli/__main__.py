"""$ python -m handclr_cli"""

from .main import main

main()
