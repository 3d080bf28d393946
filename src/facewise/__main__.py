from facewise.cli import main

main()
